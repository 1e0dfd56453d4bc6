"""A page on a port of this machine answers its own names alone, and obeys no other site."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from torch import nn

from nas import Experiment, NasValueError, ValueChoice
from nas.cli.catalogue import Catalogue
from nas.cli.consent import refusing
from nas.cli.control_page import ControlPage
from nas.cli.own_hosts import OwnHosts
from nas.evaluators import FunctionalEvaluator
from nas.strategies import Random


def dashboard(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the dashboard"]


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(application: Any) -> Iterator[int]:
    with make_server("127.0.0.1", 0, application, handler_class=Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def ask(port: int, path: str = "/", form: dict[str, str] | None = None, **headers: str) -> tuple[HTTPResponse, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    method, body = ("GET", None) if form is None else ("POST", urlencode(form))
    given = {name.title(): value.replace("PORT", str(port)) for name, value in headers.items()}
    connection.request(method, path, body, given)
    answer = connection.getresponse()
    return answer, answer.read().decode()


OWN = ["127.0.0.1:PORT", "localhost:PORT", "LOCALHOST", "[::1]:9000", "127.0.0.1"]
OTHERS = [
    "evil.example",
    "evil.example:PORT",
    "127.0.0.1.evil.example",
    "evil.example:80@127.0.0.1",
    "",
    "[",
    "0.0.0.0",
]


def test_other_names_are_refused() -> None:
    with serving(OwnHosts(dashboard)) as port:
        for host in OWN:
            assert ask(port, host=host)[1] == "the dashboard"
        for host in OTHERS:
            for path in ("/", "/api/studies", "/control"):
                answer, page = ask(port, path, host=host)
                assert answer.status == 421
                assert "--host NAME" in page
    with serving(OwnHosts(dashboard, ["lab.example.org"])) as port:
        assert ask(port, host="lab.example.org:443")[1] == "the dashboard"
        assert ask(port, host="evil.example")[0].status == 421
    for wrong in ("lab.example.org:80", "http://lab", "", "a b", "LAB"):
        with pytest.raises(NasValueError, match="a host is a name without a port"):
            OwnHosts(dashboard, [wrong])


def test_pages_of_other_sites_change_nothing() -> None:
    with serving(OwnHosts(dashboard, ["lab.example.org"])) as port:
        for origin in ("http://127.0.0.1:PORT", "http://lab.example.org"):
            assert ask(port, form={}, origin=origin, host="127.0.0.1:PORT")[1] == "the dashboard"
        assert ask(port, form={})[1] == "the dashboard", "what is no browser says no origin"
        for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "http://localhost:PORT", "[", "a\\b"):
            assert ask(port, form={}, origin=origin, host="127.0.0.1:PORT")[0].status == 403


def test_the_page_that_steers_is_framed_and_scripted_by_nobody_and_runs_no_file_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A worker of the tests has no file, and so none would be noted.
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "/search.py", raising=False)
    experiment = Experiment(
        lambda: nn.Linear(4, ValueChoice([1, 2, 3], label="width")),
        FunctionalEvaluator(lambda model: float(model.out_features)),
        Random(),
        name="first",
        directory=tmp_path,
    )
    experiment.run(1, progress="silent")
    page = ControlPage(Catalogue(directory=tmp_path), "first", dashboard, consent=refusing("say --yes"))
    with serving(OwnHosts(page)) as port:
        answer, text = ask(port, "/control")
        rules = dict(rule.split(" ", 1) for rule in (answer.headers["Content-Security-Policy"] or "").split("; "))
        (style,) = re.findall(r"<style>(.*?)</style>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert rules == {
            "default-src": "'none'",
            "style-src": f"'sha256-{digest}'",
            "form-action": "'self'",
            "base-uri": "'none'",
            "frame-ancestors": "'none'",
        }
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert not re.search(r"\sstyle=|\son\w+=|<script", text)
        word = (re.findall(r'name="word" value="([^"]+)"', text))[0]
        answer, text = ask(port, "/control", {"do": "enqueue", "word": word, "sample": '{"width": 1}'})
        assert answer.status == 400
        assert "nobody has agreed to run it" in text
        assert "say --yes" in text
