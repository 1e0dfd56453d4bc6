"""Texts of strangers are shown safely, and names that cannot be shown or kept are refused with the rule."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import nas
from nas import Experiment, Integer, LayerChoice, ModelSpace, NasError, NasValueError, ValueChoice, label_scope
from nas.evaluators import FunctionalEvaluator
from nas.plain_text import flaw_of_name, printable, secrets_of, without_passwords
from nas.strategies import GridSearch

UNSEEN = {
    "NUL": "a\0b",
    "escape": "a\x1b[2Jb",
    "C1": "a\x9bb",
    "DEL": "a\x7fb",
    "newline": "a\nb",
    "return": "a\rb",
    "tab": "a\tb",
    "a half of a pair": "a\ud800b",
    "bidi": "a\u202eb",
    "isolate": "a\u2066b",
    "zero width": "a\u200bb",
    "byte order": "a\ufeffb",
    "line separator": "a\u2028b",
    "tag": "a\U000e0041b",
    "filler": "a\u3164b",
}
ODD = {
    **UNSEEN,
    "empty": "",
    "spaces": "   ",
    "space before": " a",
    "space behind": "a ",
    "NFD": unicodedata.normalize("NFD", "ä"),
    "long": "a" * 501,
}
FOLDERS = {
    **ODD,
    "dot": ".",
    "dots": "..",
    "more dots": "...",
    "dot behind": "a.",
    "dash": "-a",
    "slash": "a/b",
    "backslash": "a\\b",
    "absolute": "/a",
    "device": "NUL",
    "device with an ending": "com1.txt",
    "long": "ä" * 101,
}


def of_each(cases: dict[str, str]) -> Any:
    return pytest.mark.parametrize("text", cases.values(), ids=cases.keys())


@of_each(UNSEEN)
def test_what_cannot_be_seen_is_shown_escaped(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert shown.startswith("a\\")
    assert shown.encode().endswith(b"b")


def test_every_character_of_these_kinds_is_escaped_and_no_letter_is() -> None:
    for code in range(sys.maxunicode + 1):
        kind = unicodedata.category(chr(code))
        if kind in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(chr(code)) in (
            *("LRE", "RLE", "LRO", "RLO", "PDF"),
            *("LRI", "RLI", "FSI", "PDI"),
        ):
            assert printable(chr(code)).startswith("\\"), hex(code)
        if kind in ("Lu", "Ll", "Nd", "Po", "Sm"):
            assert printable(chr(code)) == chr(code), hex(code)
    assert printable("a\tb\nc\rd", lines=True) == "a\tb\nc\\rd"


@pytest.mark.parametrize(
    "password", ["secret", "sec@ret", "se/cr@et", "sec:ret", "1234/5", "sec ret", "s#e?c", "s%40t"]
)
def test_passwords_are_hidden(password: str) -> None:
    shown = without_passwords(f"no answer from postgresql://me:{password}@host/base at noon")
    assert shown == "no answer from postgresql://me:***@host/base at noon"
    assert password in secrets_of(f"postgresql://me:{password}@host/base")
    assert "secret" not in str(NasError(f"postgresql://me:{password}@host/base"))
    assert without_passwords("mysql://host/base?password=secret&x=1") == "mysql://host/base?password=***&x=1"


def test_what_is_no_password_stays() -> None:
    for text in ("http://127.0.0.1:8080/control", "sqlite:///folder/file.db", "postgresql://me@host:5432/base", "a@b"):
        assert without_passwords(text) == text


def test_errors_are_safe_to_be_shown() -> None:
    assert str(NasValueError("a\x1b[31mb\nc")) == "a\\x1b[31mb\nc"


@of_each(ODD)
def test_labels_that_cannot_be_shown_are_refused_when_the_choice_is_asked(text: str) -> None:
    with pytest.raises(NasValueError, match="a label must"):
        ValueChoice([1, 2], label=text)
    with pytest.raises(NasValueError, match="a label must"):
        _ = nas.search_space({text: Integer(1, 3)}).size


@of_each(UNSEEN)
def test_so_are_those_that_are_made_of_scopes_and_candidates(text: str) -> None:
    def scoped() -> nn.Module:
        with label_scope(text):
            return nn.Linear(2, ValueChoice([1, 2], label=".width"))

    def within() -> nn.Module:
        return LayerChoice({text: lambda: nn.Linear(2, ValueChoice([1, 2])), "b": nn.Identity}, label="op")

    for space in (scoped, within):
        with pytest.raises(NasValueError, match="a label must have no control"):
            _ = ModelSpace(space).search_space


@of_each(ODD)
def test_names_of_metrics_are_refused_too(text: str, tmp_path: Path) -> None:
    with pytest.raises(NasValueError, match="the name of a metric must"):
        search(tmp_path, objective={text: "maximize"})
    experiment = search(tmp_path, value=lambda model: {text: 1.0, "b": 2.0}, name="second")
    experiment.run(1, progress="silent")
    assert "the name of a metric must" in experiment.trials[0].error


def search(folder: Path, *, value: Any = None, name: str = "first", **more: Any) -> Experiment:
    return Experiment(
        lambda: nn.Linear(4, ValueChoice([1, 2, 3], label="width")),
        FunctionalEvaluator(value or (lambda model: float(model.out_features))),
        GridSearch(),
        name=name,
        directory=folder,
        **more,
    )


@of_each(FOLDERS)
def test_names_that_are_no_folder_everywhere_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(NasValueError, match="the name of an experiment is the name of its folder: it must"):
        search(tmp_path, name=text)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["first", "a b", "größe", "2024-01-01", "v1.2", "実験", "a_b-c", "console", "ä" * 100])
def test_other_names_serve(name: str, tmp_path: Path) -> None:
    assert not flaw_of_name(name)
    search(tmp_path, name=name).run(2, progress="silent")
    assert len(Experiment.load(tmp_path / name).trials) == 2


@pytest.mark.parametrize(("one", "other"), [("First", "first"), ("Größe", "GRÖSSE"), ("straße", "STRASSE")])
def test_a_name_that_differs_by_case_alone_is_refused(one: str, other: str, tmp_path: Path) -> None:
    search(tmp_path, name=one).run(1, progress="silent")
    with pytest.raises(NasValueError, match=f"beside an experiment '{one}'"):
        search(tmp_path, name=other)
    search(tmp_path, name=one, resume=True).run(2, progress="silent")
    (tmp_path / other).mkdir(exist_ok=True)  # It was made before this was a rule.
    search(tmp_path, name=one, resume=True).run(3, progress="silent")
