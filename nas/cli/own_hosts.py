"""What a page on a port of this machine answers: its own names alone, and no other site's forms.

A browser sends what any page asks it to. A page elsewhere may call itself by a name that leads to this machine (DNS
rebinding), or send a form or a request here; both are told by the headers `Host` and `Origin`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from html import escape
from typing import Any, TypeAlias, final

from nas.errors import NasValueError, explain
from nas.plain_text import printable

Environment: TypeAlias = dict[str, Any]
Respond: TypeAlias = Callable[[str, list[tuple[str, str]]], object]
Application: TypeAlias = Callable[[Environment, Any], Iterable[bytes]]

_HOST = re.compile(r"([\w.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?", re.ASCII)
_OWN = ("127.0.0.1", "localhost", "::1")
_LOOKING = ("GET", "HEAD", "OPTIONS")


@final
class OwnHosts:
    """An application that is asked by its own names alone.

    Args:
        inner: the application.
        hosts: names beside those of this machine, of a proxy before it.

    Raises:
        NasValueError: a name that is none.
    """

    def __init__(self, inner: Application, hosts: Collection[str] = ()) -> None:
        for host in hosts:
            if not host or host != _name_of(host):
                mend = "write the name alone, in small letters, such as lab.example.org"
                raise NasValueError(explain("a host is a name without a port", got=host, where="--host", mend=mend))
        self._inner, self._others, self._hosts = inner, frozenset(hosts), frozenset((*_OWN, *hosts))

    def __call__(self, environ: Environment, start_response: Respond) -> Iterable[bytes]:
        """Answers a request."""
        host = _name_of(environ.get("HTTP_HOST", ""))
        origin = environ.get("HTTP_ORIGIN")
        if host not in self._hosts:
            return _refuse(start_response, "421 Misdirected Request", f"This page has no host of the name {host!r}")
        looks = environ.get("REQUEST_METHOD", "GET").upper() in _LOOKING
        if not looks and origin is not None and not self._is_own(origin, environ):
            return _refuse(start_response, "403 Forbidden", f"A page of {origin!r} may change nothing here")
        return self._inner(environ, start_response)

    def _is_own(self, origin: str, environ: Environment) -> bool:
        """Whether a page comes from where its request goes: another port of this machine is another place."""
        place = origin.partition("://")[2].lower()
        return place == environ.get("HTTP_HOST", "").lower() or _name_of(place) in self._others


def _name_of(host: str) -> str:
    """The name of `host` or `host:port`, in small letters; empty where it is neither."""
    found = _HOST.fullmatch(host.lower())
    return "" if found is None else found[1].strip("[]")


def _refuse(start_response: Respond, status: str, reason: str) -> list[bytes]:
    mend = "Start it with --host NAME to allow another name of this machine."
    page = f"<!doctype html><title>{status}</title><p>{escape(printable(reason))}. {mend}</p>".encode()
    headers = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Length", str(len(page))),
        ("Content-Security-Policy", "default-src 'none'"),
    ]
    start_response(status, headers)
    return [page]
