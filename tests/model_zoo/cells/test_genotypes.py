"""Genotypes that somebody else has written: what is no cell is refused by an error of ours."""

from __future__ import annotations

import random
from dataclasses import asdict
from typing import Any

import pytest

from nas import NasError, NasTypeError, NasValueError
from nas.model_zoo import DARTS_V2, NASNET_A, Genotype, genotype_to_sample, sample_to_genotype

ODD = [None, 5, -1, "text", [], {}, [[1]], (1, 2), 1.5, float("nan"), 10**400, True, ["sep_conv_3x3", 0], b"a"]


def test_lists_do_as_tuples_for_json_has_no_others() -> None:
    written = {name: [list(e) if isinstance(e, tuple) else e for e in part] for name, part in asdict(DARTS_V2).items()}
    assert Genotype(**written) == DARTS_V2
    assert hash(Genotype(**written)) == hash(DARTS_V2)
    assert Genotype(**asdict(DARTS_V2) | {"normal_concat": range(2, 6)}) == DARTS_V2


@pytest.mark.parametrize("name", ["normal", "reduce", "normal_concat", "reduce_concat"])
@pytest.mark.parametrize(
    "odd", [None, 5, "text", [5, "a"], {"a": 1}, [["a", "b"]], [("a", 1, 2)], [("a", 1.5)], [(["a"], 1)]]
)
def test_what_is_no_cell_is_refused(name: str, odd: Any) -> None:
    with pytest.raises(NasTypeError, match="cell|states"):
        Genotype(**asdict(DARTS_V2) | {name: odd})


def test_odd_answers_are_refused() -> None:
    rng = random.Random(0)
    for _ in range(3000):
        space, genotype = rng.choice([("darts", DARTS_V2), ("nasnet", NASNET_A)])
        sample: dict[str, Any] = dict(genotype_to_sample(genotype, space))
        label = rng.choice(list(sample))
        if rng.random() < 0.1:
            del sample[label]
        else:
            sample[label] = rng.choice(ODD)
        try:
            genotype_to_sample(sample_to_genotype(sample, space), space)
        except NasError:
            continue
    for odd in ODD:
        with pytest.raises(NasError):
            sample_to_genotype(odd, "darts")  # type: ignore[arg-type]
        with pytest.raises(NasError):
            genotype_to_sample(odd, "darts")  # type: ignore[arg-type]
        with pytest.raises(NasValueError, match="of a cell space"):
            sample_to_genotype({}, odd)  # type: ignore[arg-type]
