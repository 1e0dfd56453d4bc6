"""The copy that is traced: in eval mode, with weights of its own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nas import NasTypeError, NasValueError
from nas.export.inference_copy import inference_copy


def test_what_was_computed_and_kept_is_copied() -> None:
    net = nn.Linear(4, 3)
    net.found = {"last": [net(torch.randn(2, 4))]}  # type: ignore[assignment]  # as hooks keep activations
    twin = inference_copy(net.train())
    assert not twin.training
    assert torch.equal(twin.found["last"][0], net.found["last"][0])  # type: ignore[index]  # a dict
    assert twin.weight.data_ptr() != net.weight.data_ptr()


def test_what_cannot_be_copied_is_refused() -> None:
    class Locked(nn.Module):
        def __deepcopy__(self, memo: object) -> Locked:
            raise RuntimeError("it holds a lock")

    with pytest.raises(NasTypeError, match=r"cannot be copied \(RuntimeError: it holds a lock\)"):
        inference_copy(Locked())
    with pytest.raises(NasValueError, match="on the meta device or lazy"):
        inference_copy(nn.LazyLinear(3))
