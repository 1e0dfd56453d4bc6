"""Architectures of the zoo are built without weights, and exported with any size of batch."""

import pytest
import torch

from nas.model_zoo.registry import SPACES, space

pytestmark = pytest.mark.long

NAMES = ["general", "mobilenet_v3", "proxylessnas", "resnet", "shufflenet_v2", "transformer_lm", "vision_transformer"]


def batch(name: str, size: int) -> torch.Tensor:
    entry, generator = SPACES[name], torch.Generator().manual_seed(0)
    shape = (size, *entry.input_shape)
    if entry.tokens is None:
        return torch.rand(shape, generator=generator)
    return torch.randint(entry.tokens, shape, generator=generator)


@pytest.mark.parametrize("name", NAMES)
def test_full_size_architectures_run_on_the_meta_device(name: str) -> None:
    zoo_space = space(name)
    model = zoo_space.build(zoo_space.sample(0), device="meta")
    length = (128,) if SPACES[name].tokens else (3, 224, 224)
    x = torch.empty(2, *length, dtype=torch.long if SPACES[name].tokens else torch.float, device="meta")
    scores = model(x)
    assert scores.is_meta
    assert scores.shape == ((2, 128, 256) if SPACES[name].tokens else (2, 10 if name == "resnet" else 1000))


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_architecture_yields_the_same(name: str) -> None:
    zoo_space = space(name, **SPACES[name].tiny)
    model = zoo_space.build(zoo_space.sample(1)).eval()
    exported = torch.export.export(model, (batch(name, 2),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    examples = batch(name, 5)
    with torch.no_grad():
        torch.testing.assert_close(exported.module()(examples), model(examples))
