"""What every space of the zoo promises: any sample validates, is JSON, builds, runs forward and backward."""

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nas import ModelSpace
from nas.model_zoo.registry import SPACES, list_spaces, space


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
