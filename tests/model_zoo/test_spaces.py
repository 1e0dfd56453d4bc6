"""What every space of the zoo promises: any sample validates, is JSON, builds, runs forward and backward."""

import json
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nas import ModelSpace, NasError, NasTypeError, NasValueError
from nas.model_zoo.registry import SPACES, list_spaces, model, space


@pytest.fixture(scope="module", params=list_spaces())
def tiny(request: pytest.FixtureRequest) -> tuple[str, ModelSpace]:
    return request.param, space(request.param, **SPACES[request.param].tiny)


@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**6))
def test_any_sample_is_valid_json_and_learns(tiny: tuple[str, ModelSpace], seed: int) -> None:
    name, zoo_space = tiny
    entry = SPACES[name]
    sample = zoo_space.sample(seed)
    assert zoo_space.contains(sample)
    assert zoo_space.validate(json.loads(json.dumps(sample))) == sample
    model = zoo_space.build(sample)
    generator = torch.Generator().manual_seed(seed)
    shape = (2, *entry.input_shape)
    batch = (
        torch.rand(shape, generator=generator)
        if entry.tokens is None
        else torch.randint(entry.tokens, shape, generator=generator)
    )
    scores = model(batch)
    assert scores.isfinite().all()
    scores.square().sum().backward()
    without = [n for n, parameter in model.named_parameters() if parameter.grad is None]
    assert entry.unread or not without


def test_the_default_is_what_no_sample_builds(tiny: tuple[str, ModelSpace]) -> None:
    _, zoo_space = tiny
    assert zoo_space.contains(zoo_space.default())
    assert isinstance(zoo_space.size, int)
    assert zoo_space.size > 1


def test_every_space_prints_its_name_and_its_size(tiny: tuple[str, ModelSpace]) -> None:
    _, zoo_space = tiny
    first, *_, last = str(zoo_space).splitlines()
    assert first == zoo_space.name
    assert "architectures" in last


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("lenett", {}, NasValueError, "did you mean 'lenet'"),
        (3, {}, NasValueError, "unknown model space; the known names are 'amoebanet'"),
        ("darts", {"chanels": 4}, NasTypeError, "space 'darts': no such argument; did you mean 'channels'"),
        ("lenet", {"chanels": 4, "depth": 1}, NasTypeError, "received 'chanels, depth'"),
        ("resnet", {"width": "a", "classes": 0}, NasTypeError, "width must be an int.*'a'.*classes must be an int.*0"),
        (
            "resnet",
            {"width": -1, "classes": 0},
            NasValueError,
            "width must be an int from 1 on.*classes must be an int",
        ),
        ("darts", {"cells": 2.5}, NasTypeError, "space 'darts': cells must be an int from 1 on, or None; received 2.5"),
        ("darts", {"auxiliary": 1}, NasTypeError, "auxiliary must be True or False"),
        ("darts", {"drop_path": "a"}, NasTypeError, "drop_path must be a number"),
        ("vision_transformer", {"ranges": 3}, NasTypeError, "ranges must be a TransformerRanges"),
        ("shufflenet_v2", {"widths": 3}, NasValueError, "space 'shufflenet_v2': no network can be built"),
    ],
)
def test_bad_arguments_are_explained(name: Any, arguments: dict[str, Any], error: type[NasError], message: str) -> None:
    with pytest.raises(error, match=message):
        space(name, **arguments)


def test_defaults_that_are_none_and_arguments_of_one_space_are_taken() -> None:
    assert space("darts", cells=None, channels=4, none=True).size == (180 * 8**8) ** 2
    with pytest.raises(NasTypeError, match="no such argument; the known names"):
        space("nasnet", none=True)
    with pytest.raises(NasValueError, match="unknown model; the known names are"):
        model(None)  # type: ignore[arg-type]
