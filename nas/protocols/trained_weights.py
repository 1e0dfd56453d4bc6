"""The weights that a trial was judged with: a file in its folder, written when they were judged and read for exports.

It is a plain state dict, which `torch.load(weights_only=True)` reads; buffers that it leaves out lie beside it.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nas.errors import ExperimentError, explain, told_if_full
from nas.files import drafted, is_file
from nas.protocols.weight_files import BUFFERS, FILE, forget_weights
from nas.reading import Refused, torch_tensors

KeptWeights: TypeAlias = tuple[dict[str, Any], dict[str, Tensor]]
"""A state dict on the CPU that shares nothing with its model, and the buffers that it leaves out."""


def copy_weights(model: nn.Module) -> KeptWeights:
    """The weights of a model as they are now."""
    copies: dict[Any, Tensor] = {}

    def copied(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        with suppress(Exception):  # kinds of tensors without a storage of their own are not tied
            key = (value.untyped_storage().data_ptr(), value.storage_offset(), value.shape, value.stride(), value.dtype)
            if value.numel():
                if key not in copies:
                    copies[key] = value.detach().to("cpu", copy=True)
                return copies[key]
        return value.detach().to("cpu", copy=True)

    state = {name: copied(value) for name, value in model.state_dict().items() if not is_lazy(value)}
    lazy = {name for name, buffer in model.named_buffers(remove_duplicate=False) if is_lazy(buffer)}
    others = {
        name: copied(buffer)
        for name, buffer in model.named_buffers(remove_duplicate=False)
        if name not in state and name not in lazy
    }
    return state, others


def write_weights(folder: Path, weights: KeptWeights) -> bool:
    """Keeps weights as those that a trial was judged with, in place of earlier ones.

    Returns:
        Whether they are kept: not where something in them could only be read by executing code.
    """
    forget_weights(folder)
    state, others = weights
    if others and not save_state(folder / BUFFERS, others):
        return False
    return save_state(folder / FILE, state)  # the last one, for it is the one that is looked for


def save_state(path: Path, content: Mapping[str, Any]) -> bool:
    """Writes a state dict, whole or not at all; its folder is made where needed.

    Returns:
        Whether it is written: not where something in it could only be read by executing code.

    Raises:
        DiskFull: there is no room for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with told_if_full(path), drafted(path) as draft:
            torch.save(dict(content), draft)
            draft.flush()
            if any(type(value) is not Tensor for value in content.values()):
                torch_tensors(draft.name)
    except (pickle.PickleError, TypeError, AttributeError, Refused):
        return False
    return True


def load_weights(model: nn.Module, file: Path) -> nn.Module:
    """Gives a model the weights of a file that `write_weights` wrote; no number loses precision.

    Args:
        model: as the trial began with it; it is changed.
        file: the state dict.

    Returns:
        The model, in evaluation mode.

    Raises:
        ExperimentError: the file cannot be read, or is of another architecture.
    """
    state, beside = read_state(file), file.with_name(BUFFERS)
    others = read_state(beside) if file.name == FILE and is_file(beside) else {}
    _refuse_differences(model, state, others, file)
    tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    with torch.no_grad():
        for name, value in {**state, **others}.items():
            own = tensors.get(name)
            if own is not None and not is_lazy(own):
                own.data = own.data.to(torch.promote_types(own.dtype, value.dtype))
        try:
            model.load_state_dict(state, strict=False)  # what is missing or too much has been refused
        except Exception as error:  # hooks of the user's modules may raise anything
            raise ExperimentError(explain(f"the model does not take the weights: {error}", got=str(file))) from error
        for name, value in others.items():
            tensors[name].copy_(value)
    return model.eval()


def read_state(file: Path) -> dict[str, Any]:
    """A state dict, read without executing anything.

    Raises:
        ExperimentError: it is none, or cannot be read.
    """
    try:
        state = torch_tensors(file)
    except (Refused, OSError) as error:
        raise ExperimentError(explain(f"the weights cannot be read ({error})", got=str(file))) from error
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ExperimentError(explain("the file holds no state dict", got=str(file)))
    return state


def _refuse_differences(model: nn.Module, state: dict[str, Any], others: dict[str, Any], file: Path) -> None:
    own = model.state_dict()
    lazy = {name for name, value in own.items() if is_lazy(value)}
    buffers = dict(model.named_buffers(remove_duplicate=False))
    found = [f"{name!r} is missing" for name in own.keys() - state.keys() - lazy]
    found += [f"{name!r} is too much" for name in state.keys() - own.keys()]
    found += [f"{name!r} is too much" for name in others.keys() - buffers.keys()]
    for name, value in {**state, **others}.items():
        mine = own.get(name, buffers.get(name))
        if not isinstance(mine, Tensor) or name in lazy or is_lazy(mine):
            continue
        if not isinstance(value, Tensor):
            found.append(f"{name!r} is no tensor")
        elif mine.shape != value.shape:
            found.append(f"{name!r} is {tuple(value.shape)} in place of {tuple(mine.shape)}")
    if found:
        raise ExperimentError(
            explain(
                "the weights are not of the architecture that the space builds now: " + "; ".join(sorted(found)[:3]),
                got=str(file),
                mend="use the space of the search, and an evaluator that leaves the model's layers as they are",
            )
        )
