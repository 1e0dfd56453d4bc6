"""Private names of torch's compiler are there and mean what we think."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch
import torch._functorch.config
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from nas._compat.compiler import COMPILER_ERRORS, cache_counts, is_transformed, once_for_all


def test_what_cannot_be_compiled_raises_one_of_the_errors() -> None:
    def waits(x: Tensor) -> Tensor:
        return x * 2 if float(x) > 0 else x

    with pytest.raises(COMPILER_ERRORS):
        torch.compile(waits, backend="eager", fullgraph=True)(torch.ones(()))

    def counts(x: Tensor, number: int) -> Tensor:
        return x * number

    compiled = torch.compile(counts, backend="eager", fullgraph=True, dynamic=False)
    with torch._dynamo.config.patch(recompile_limit=1):
        compiled(torch.ones(1), 2)
        with pytest.raises(COMPILER_ERRORS):
            compiled(torch.ones(1), 3)


def test_the_settings_are_there_and_set_back() -> None:
    config = torch._functorch.config
    before = config.donated_buffer
    with once_for_all(), warnings.catch_warnings(record=True) as said:
        assert not config.donated_buffer
        assert not said
    assert config.donated_buffer == before


def test_modes_and_transforms_are_noticed() -> None:
    assert not is_transformed()
    with FlopCounterMode(display=False):
        assert is_transformed()
    seen: list[bool] = []

    def look(x: Tensor) -> Tensor:
        seen.append(is_transformed())
        return x.sum()

    torch.func.grad(look)(torch.ones(2))
    assert seen == [True]


PROCESS = """
import torch
from nas._compat.compiler import cache_counts
torch.compile(lambda x: x.sin() + 1)(torch.ones(3, requires_grad=True)).sum().backward()
print(dict(cache_counts()))
"""


@pytest.mark.slow
def test_graphs_that_are_found_on_disk_are_counted(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    said = [
        subprocess.run([sys.executable, "-c", PROCESS], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert "miss" in said[0]
    assert "hit" not in said[0]
    assert "hit" in said[1]
    assert "miss" not in said[1]
    assert set(cache_counts()) <= {"hit", "miss", "bypass"}
