"""A search that runs obeys the forms beside the dashboard, and the shell's `nas enqueue`, within a second."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen
from wsgiref.simple_server import make_server
from wsgiref.util import setup_testing_defaults

import pytest
from typer.testing import CliRunner

from nas import Experiment
from nas.cli.catalogue import Catalogue
from nas.cli.commands import app
from nas.cli.consent import asking
from nas.cli.control_page import ControlPage
from nas.testing import wait_until

pytestmark = pytest.mark.long

SOON = 1.0 + float(os.environ.get("NAS_TEST_SLACK", "3"))

FILE = """
import sys, time
from pathlib import Path
from torch import nn
from nas import Experiment, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.strategies import Random

folder = Path(__file__).parent

def evaluate(model):
    (folder / f"begun-{model.out_features}").touch()
    while not (folder / f"go-{model.out_features}").exists():
        time.sleep(0.01)
    return float(model.out_features)

if __name__ == "__main__":
    experiment = Experiment(lambda: nn.Linear(2, ValueChoice(list(range(1, 30)), label="width")),
                            FunctionalEvaluator(evaluate), Random(), name="live", directory=folder,
                            executor=EXECUTOR, resume="auto")
    experiment.enqueue({"width": 1})
    experiment.run(20, progress="silent", concurrency=1)
"""


@contextmanager
def live(folder: Path, executor: str = "inline") -> Iterator[subprocess.Popen[bytes]]:
    """A search, of which the trial of width 1 has begun; a trial ends when there is a file go-WIDTH."""
    (folder / "search.py").write_text(FILE.replace("EXECUTOR", repr(executor)))
    process = subprocess.Popen([sys.executable, str(folder / "search.py")], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: (folder / "begun-1").exists() or process.poll() is not None)
        assert process.poll() is None
        yield process
    finally:
        process.kill()
        process.wait()


def dashboard(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"the dashboard"]


class Browser:
    """Looks at the page, and sends its forms."""

    def __init__(self, folder: Path) -> None:
        self.page = ControlPage(Catalogue(directory=folder), "live", dashboard, consent=asking("dashboard", yes=True))

    def ask(self, path: str = "/control", form: dict[str, str] | None = None) -> tuple[str, str]:
        environ: dict[str, Any] = {"PATH_INFO": path}
        setup_testing_defaults(environ)
        if form is not None:
            body = urlencode(form).encode()
            environ |= {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
        status: list[str] = []
        text = b"".join(self.page(environ, lambda given, headers: status.append(given))).decode()
        return status[0], text

    def send(self, do: str, **form: str) -> str:
        _, page = self.ask()
        (word,) = set(re.findall(r'name="word" value="([^"]+)"', page))
        status, text = self.ask(form={"do": do, "word": word, **form})
        said = re.search(r"<p class=said>(.*?)</p>", text, re.S)
        assert said is not None
        return f"{status[:3]} {said[1]}"


def soon(condition: Callable[[], bool]) -> None:
    begin = time.monotonic()
    wait_until(condition)
    assert time.monotonic() - begin < SOON


def states(folder: Path) -> str:
    return "".join(trial.state.name[0] for trial in Experiment.load(folder / "live").trials)


@pytest.mark.parametrize("executor", ["inline", pytest.param("process", marks=pytest.mark.slow)])
def test_a_live_search_obeys_the_page(executor: str, tmp_path: Path) -> None:
    with live(tmp_path, executor) as process:
        browser = Browser(tmp_path)
        _, page = browser.ask()
        assert "running: 1 RUNNING" in page
        assert "Kill trial 0" in page
        assert 'placeholder="20"' in page
        assert browser.send("enqueue", sample=json.dumps({"width": 29})) == "200 It is in the queue."
        assert browser.send("set", max_trials="3") == "200 live: max trials 3, now."
        assert browser.send("kill", trial="0") == "200 Trial 0 is being ended, and FAILED."
        soon(lambda: states(tmp_path).startswith("F"))
        wait_until(lambda: (tmp_path / "begun-29").exists())  # a killed process takes its time to be replaced
        assert browser.send("stop") == "200 live ends when its running trials have."
        (tmp_path / "go-29").touch()
        soon(lambda: process.poll() is not None)
    assert states(tmp_path) == "FC"
    assert browser.send("retry") == "200 In the queue again: 0."


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["inline", pytest.param("process", marks=pytest.mark.slow)])
def test_a_live_search_takes_what_the_shell_enqueues(executor: str, tmp_path: Path) -> None:
    (tmp_path / "sample.json").write_text(json.dumps({"width": 29}))
    with live(tmp_path, executor):
        found = CliRunner().invoke(
            app, ["enqueue", "--yes", "live", str(tmp_path / "sample.json"), "-d", str(tmp_path)]
        )
        assert found.stdout == "It is in the queue.\n"
        (tmp_path / "go-1").touch()
        soon(lambda: (tmp_path / "begun-29").exists())


def test_what_makes_no_sense_is_said_and_other_sites_are_refused(tmp_path: Path) -> None:
    with live(tmp_path) as process:
        browser = Browser(tmp_path)
        said = browser.send("kill", trial="x<y")
        assert said == "400 kill: a trial is named by its number; received &#x27;x&lt;y&#x27;."
        assert browser.send("kill", trial="7").startswith("400 ")
        assert browser.send("set").startswith("400 nas set: set changes one limit at least")
        assert browser.send("set", timeout="soon").startswith("400 ")
        assert browser.send("enqueue", sample='{"depth": 1}').startswith("400 ")
        assert browser.send("enqueue", sample="no JSON").startswith("400 ")
        assert browser.send("explode").startswith("400 the form must say what to do")
        status, text = browser.ask(form={"do": "stop", "word": "guessed"})
        assert status.startswith("400")
        assert "of another page" in text
        assert browser.ask("/dashboard") == ("200 OK", "the dashboard")
        assert process.poll() is None


def test_it_is_served(tmp_path: Path) -> None:
    with live(tmp_path), make_server("127.0.0.1", 0, Browser(tmp_path).page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with urlopen(f"http://127.0.0.1:{server.server_port}/control") as answer:
            page = answer.read().decode()
        server.shutdown()
    assert page.count("<form") == 5
