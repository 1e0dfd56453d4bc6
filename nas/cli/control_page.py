"""A page beside Optuna's dashboard: what runs, and forms that change, kill, enqueue and stop, as the commands do."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import final
from urllib.parse import parse_qs

import typer

from nas.cli.catalogue import Catalogue
from nas.cli.consent import Consent
from nas.cli.control import change, count, kill, seconds
from nas.cli.own_hosts import Application, Environment, Respond
from nas.cli.running import reopened
from nas.errors import NasError, NasValueError, explain
from nas.plain_text import printable, without_passwords

CONTROL = "/control"
"""Where the page is; all else is the dashboard's."""

_LONGEST = 1_000_000
"""Bytes of a form that are read."""

_LIMITS: Mapping[str, tuple[str, Callable[[str], float]]] = {
    "max_trials": ("trials in all", count),
    "timeout": ("time of the run (12h, 1h30m)", seconds),
    "max_trial_time": ("time of a trial (90s)", seconds),
    "concurrency": ("trials at a time", count),
}


@final
class ControlPage:
    """The page, in front of the dashboard that has all other addresses.

    What is sent is taken from forms of this page alone: each has a word that other sites cannot know.

    Args:
        catalogue: where the experiment is kept.
        name: of it.
        dashboard: Optuna's.
        consent: to run the file that the experiment's notes name, which makes it again for a sample that is enqueued.
        file: FILE[:NAME] that makes it, where the user has named one.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        name: str,
        dashboard: Application,
        *,
        consent: Consent,
        file: str | None = None,
    ) -> None:
        self._catalogue, self._name, self._dashboard = catalogue, name, dashboard
        self._consent, self._file = consent, file
        self._word = secrets.token_urlsafe(16)
        self._actions: dict[str, Callable[[Mapping[str, str]], str]] = {
            "set": self._set,
            "stop": self._stop,
            "kill": lambda form: kill(catalogue, name, [count_of(form.get("trial", ""))]),
            "retry": self._retry,
            "enqueue": self._enqueue,
        }

    def __call__(self, environ: Environment, start_response: Respond) -> Iterable[bytes]:
        """Answers a request."""
        if environ.get("PATH_INFO", "").rstrip("/") != CONTROL:
            return self._dashboard(environ, start_response)
        said, status = "", "200 OK"
        if environ.get("REQUEST_METHOD") == "POST":
            form = _form(environ)
            try:
                said = self._done(form)
            except (NasError, typer.BadParameter) as error:
                said, status = getattr(error, "message", "") or str(error), "400 Bad Request"
            except (Exception, SystemExit) as error:  # in the file that makes the experiment
                said, status = f"{type(error).__name__}: {error}", "500 Internal Server Error"
        page = self._page(said).encode()
        start_response(status, [*_HEADERS, ("Content-Length", str(len(page)))])
        return [page]

    def _done(self, form: Mapping[str, str]) -> str:
        """Does what a form says; in words."""
        if not hmac.compare_digest(form.get("word", "").encode(), self._word.encode()):
            raise NasValueError(explain("the form is of another page", mend="look at this page again"))
        action = self._actions.get(form.get("do", ""))
        if action is None:
            raise NasValueError(
                explain("the form must say what to do", got=form.get("do"), mend=", ".join(self._actions))
            )
        return action(form)

    def _set(self, form: Mapping[str, str]) -> str:
        given = {key: read(form[key]) for key, (_, read) in _LIMITS.items() if form.get(key, "").strip()}
        return change(self._catalogue, self._name, **given)

    def _stop(self, form: Mapping[str, str]) -> str:
        self._catalogue.stop(self._name)
        return f"{self._name} ends when its running trials have."

    def _retry(self, form: Mapping[str, str]) -> str:
        numbers = self._catalogue.retry(self._name, None)
        return f"In the queue again: {', '.join(map(str, numbers))}." if numbers else "No trial is FAILED."

    def _enqueue(self, form: Mapping[str, str]) -> str:
        from nas.domains import loads_sample

        sample = loads_sample(form.get("sample", ""))
        new = reopened(
            self._catalogue,
            self._name,
            lambda e: e.enqueue(sample),
            consent=self._consent,
            file=self._file,
            accept_changes=False,
        )
        return "It is in the queue." if new else "It has been tried, or is in the queue, already."

    def _page(self, said: str) -> str:
        found = self._catalogue.describe(self._name)
        limits = self._catalogue.ledger(self._name).notes().run
        trials = self._catalogue.find(self._name).trials
        running = [trial.number for trial in trials if not trial.state.is_finished]
        counts = ", ".join(f"{number} {state}" for state, number in found["trials"].items() if number) or "no trials"
        rows = "".join(
            f'<label>{text} <input name="{key}" placeholder="{_safe(_shown(limits.get(key)))}"></label>'
            for key, (text, _) in _LIMITS.items()
        )
        kills = "".join(
            self._form("kill", f'<input type="hidden" name="trial" value="{number}">', f"Kill trial {number}")
            for number in running
        )
        return _PAGE.format(
            name=_safe(self._name),
            style=_STYLE,
            said=f"<p class=said>{_safe(said)}</p>" if said else "",
            state=_safe(f"{found['state']}: {counts}"),
            limits=self._form("set", rows, "Change what is filled in"),
            running=kills or "<p>No trial runs.</p>",
            enqueue=self._form(
                "enqueue", '<textarea name="sample" placeholder=\'{"width": 32}\'></textarea>', "Enqueue"
            ),
            retry=self._form("retry", "", "Try all FAILED trials again"),
            stop=self._form("stop", "", "Stop when the running trials have ended"),
        )

    def _form(self, what: str, inside: str, button: str) -> str:
        hidden = f'<input type="hidden" name="word" value="{self._word}"><input type="hidden" name="do" value="{what}">'
        return f'<form method="post" action="{CONTROL}">{hidden}{inside}<button>{button}</button></form>'


def _safe(text: str) -> str:
    return escape(without_passwords(printable(text, lines=True)))


def count_of(text: str) -> int:
    """The number of a trial.

    Raises:
        NasValueError: it is none.

    Example:
        >>> count_of("7")
        7
    """
    if not text.isdecimal():
        raise NasValueError(explain("a trial is named by its number", got=text, where="kill"))
    return int(text)


def _form(environ: Environment) -> dict[str, str]:
    """What a form says; the last of several values of one name."""
    try:
        length = min(int(environ.get("CONTENT_LENGTH") or 0), _LONGEST)
    except ValueError:
        length = 0
    text = environ["wsgi.input"].read(length).decode("utf-8", "replace")
    return {key: values[-1] for key, values in parse_qs(text).items()}


def _shown(limit: object) -> str:
    return "none" if limit is None else f"{limit:g}" if isinstance(limit, int | float) else str(limit)


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
form { margin: .5rem 0 } label { display: flex; justify-content: space-between; gap: 1rem; margin: .3rem 0 }
textarea { display: block; width: 100%; height: 4rem; margin-bottom: .3rem; box-sizing: border-box }
button { padding: .3rem .8rem }
h2 { font-size: 1rem; margin: 1.5rem 0 0; border-top: 1px solid #ddd; padding-top: .8rem }
.said { background: #eef4ff; border-left: 4px solid #4a7bd0; padding: .6rem .8rem; white-space: pre-wrap }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = [
    ("Content-Type", "text/html; charset=utf-8"),
    (
        "Content-Security-Policy",
        f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
]
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>
<style>{style}</style></head><body><h1>{name}</h1>{said}<p>{state} &middot; <a href="/control">look again</a> &middot;
<a href="/dashboard">the dashboard</a></p>
<h2>Limits</h2><p>What is left empty stays; <code>none</code> takes a limit away.</p>{limits}
<h2>Running trials</h2>{running}<h2>A sample first</h2>{enqueue}<h2>The search</h2>{retry}{stop}</body></html>
"""
