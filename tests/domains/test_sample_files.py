"""Samples from strangers: what is damaged is refused by an error that names the file, and never by another one."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from torch import nn

from nas import Integer, ModelSpace, NasError, NasTypeError, NasValueError, Real, ValueChoice, load_sample
from nas.domains import loads_sample
from nas.testing import survives_mutants

DAMAGED = {
    "nothing": b"",
    "no JSON": b"{'width': 16}",
    "torn": b'{"width": 1',
    "a list": b"[1, 2]",
    "null": b"null",
    "nested without end": b'{"width": ' + b"[" * 100_000,
    "nested deeply": b'{"width": ' + b"[" * 500 + b"]" * 500 + b"}",
    "a deep tuple": b'{"width": ' + b'{"__tuple__": [' * 300 + b"]}" * 300 + b"}",
    "a name twice": b'{"width": 16, "depth": 2, "width": 32}',
    "NaN": b'{"width": NaN}',
    "infinity": b'{"width": -Infinity}',
    "too large a number": b'{"width": [1e999]}',
    "thousands of digits": b'{"width": ' + b"9" * 10_000 + b"}",
    "no UTF-8": b'{\n"w\xff": 16}',
    "another encoding": '{"width": 16}'.encode("utf-16"),
    "a tuple of nothing": b'{"width": {"__tuple__": 5}}',
    "a dict": b'{"width": {"a": 5}}',
    "NUL": bytes(1000),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_sample_is_refused_by_the_name_of_its_file(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "best.json"
    path.write_bytes(DAMAGED[damage])
    with pytest.raises(NasValueError, match=r"best\.json") as caught:
        load_sample(path)
    assert len(str(caught.value)) < 1500
    try:
        text = DAMAGED[damage].decode()
    except UnicodeDecodeError:
        return
    with pytest.raises(NasValueError):
        loads_sample(text)


def test_the_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    path.write_text('{\n  "width": 16,\n  "depth": nothing\n}')
    with pytest.raises(NasValueError, match="line 3"):
        load_sample(path)
    path.write_bytes(b'{\n"width": "\xff"}')
    with pytest.raises(NasValueError, match="line 2"):
        load_sample(path)


def test_what_is_no_file_or_far_too_large_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(1 << 40)  # it has holes, and no bytes
    for name in ("pipe.json", "large.json", "none.json", "."):
        with pytest.raises(NasValueError, match="a sample file must be readable text"):
            load_sample(tmp_path / name)
    with pytest.raises(NasTypeError, match="read from a text"):
        loads_sample(b"{}")  # type: ignore[arg-type]


def test_a_link_that_the_user_names_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text('{"width": 16}')
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    assert load_sample(tmp_path / "link.json") == {"width": 16}


def net() -> nn.Module:
    ValueChoice(Real(1e-4, 1.0, log=True), label="rate")
    ValueChoice(Real(0.0, 1.0, step=0.25), label="share")
    ValueChoice([None, True, 2, 2.5, "a", (1, 2)], label="kind")
    return nn.Linear(ValueChoice(Integer(1, 8), label="width"), 2)


SPACE = ModelSpace(net)


@pytest.mark.parametrize(
    "answer", ["9" * 400, "-" + "9" * 400, '"a"', "[]", "null", "true", "1e300", '{"__tuple__": []}']
)
def test_odd_answers_are_refused_by_the_space(answer: str) -> None:
    for label in ("rate", "share", "kind", "width"):
        if label == "kind" and answer in ("null", "true", '"a"'):
            continue  # it is one of its candidates
        sample = SPACE.default() | loads_sample(f'{{"{label}": {answer}}}')
        assert not SPACE.contains(sample)
        with pytest.raises(NasError):
            SPACE.validate(sample)


def test_a_hundred_thousand_unknown_labels_are_refused_soon() -> None:
    sample = SPACE.default() | {f"label {number}": number for number in range(100_000)} | {"w" * 10**6: 1}
    start = time.process_time()
    for refuse in (SPACE.validate, SPACE.complete):
        with pytest.raises(NasValueError, match="no choice of this space has this label") as caught:
            refuse(sample)
        assert len(str(caught.value)) < 40_000
    assert time.process_time() - start < 10


def read(path: Path) -> None:
    SPACE.validate(load_sample(path))


ORIGINALS = [b'{"rate": 0.1, "share": 0.5, "kind": {"__tuple__": [1, 2]}, "width": 4}\n']


def test_damaged_samples(tmp_path: Path) -> None:
    survives_mutants(read, ORIGINALS, count=1500, folder=tmp_path)


@pytest.mark.slow
@pytest.mark.fuzz
def test_a_hundred_thousand_damaged_samples(tmp_path: Path) -> None:
    survives_mutants(read, ORIGINALS, count=100_000, folder=tmp_path)
