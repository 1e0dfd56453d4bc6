"""How important channels and heads are: by their weights, by what they compute on data, or by its gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas._compat.torch_internals import BatchNorm, Convolution
from nas.checks import check_word
from nas.compress.dependencies import Group, Groups, Slot, named_tensors
from nas.errors import NasTypeError, NasValueError, explain
from nas.example_inputs import read_example

Weights: TypeAlias = Mapping[str, Tensor]
"""The name of a parameter -> what it holds of each channel or head: "(channels, numbers)"."""
Importance: TypeAlias = "str | Callable[[Weights], Tensor]"
"""A name, or a function of the weights of one group that says how important each channel or head is: "(channels,)"."""

BY_WEIGHTS = ("l1", "l2", "fpgm", "batchnorm", "random")
BY_DATA = ("activation", "apoz", "mean", "taylor", "movement")


def check_importance(importance: object, data: object) -> None:
    """Refuses what says no importance, and what needs data and has none.

    Raises:
        NasTypeError: neither a name nor a function.
        NasValueError: a name that is not known, or one that needs data.
    """
    if not callable(importance):
        check_word("importance", importance, (*BY_WEIGHTS, *BY_DATA), where="elastic")
    if importance in BY_DATA and data is None:
        raise NasValueError(
            explain(
                f"importance={importance!r} is measured on data",
                got=data,
                where="elastic",
                mend="data=loader, an iterable of batches as they are trained with",
            )
        )
    if data is not None and (not isinstance(data, Iterable) or isinstance(data, Tensor | Mapping | str)):
        mend = "data=loader; for a single batch data=[batch]"
        raise NasTypeError(explain("data is an iterable of batches", got=data, where="elastic", mend=mend))


def scores(model: nn.Module, groups: Groups, importance: Importance, data: Iterable[Any] | None) -> list[Tensor]:
    """How important each channel or head of each group is.

    Args:
        model: a copy, with its weights.
        groups: of it.
        importance: see `Importance`.
        data: batches, for what is measured on them.

    Raises:
        NasValueError: a function that says something else than one number for each.
    """
    tensors = named_tensors(model)
    if importance in ("taylor", "movement"):
        assert data is not None
        return _by_gradients(model, groups, str(importance), data)
    if importance in BY_DATA:
        assert data is not None
        return _by_activations(model, groups, str(importance), data)
    found = []
    generator = torch.Generator().manual_seed(0)
    for number, group in enumerate(groups.groups):
        weights = {
            name if dim == 0 else f"{name} (dimension {dim})": rows
            for (name, dim), rows in _rows(tensors, groups, number).items()
            if isinstance(tensors[name], nn.Parameter)
        }
        if callable(importance):
            found.append(_asked(importance, weights, group))
        elif importance == "random":
            found.append(torch.rand(group.size, generator=generator))
        elif importance == "batchnorm":
            scales = _scales(model, weights)
            found.append(_norm(weights, 2) if scales is None else scales)
        elif importance == "fpgm":
            found.append(_joined([torch.cdist(w, w).sum(1) for w in _matrices(weights)]))
        else:
            found.append(_norm(weights, 1 if importance == "l1" else 2))
    return found


def _rows(tensors: Mapping[str, Tensor], groups: Groups, number: int) -> dict[Slot, Tensor]:
    """What tensors hold of each channel or head of a group, by their dimensions."""
    found = {}
    for name, dim in groups.groups[number].slots:
        tensor = tensors[name].detach()
        if tensor.is_floating_point():
            places = groups.positions(number, (name, dim)).to(tensor.device)
            rows = tensor.index_select(dim, places.flatten()).movedim(dim, 0)
            found[name, dim] = rows.reshape(len(places), -1).float()
    return found


def _joined(each: list[Tensor]) -> Tensor:
    """Several scores as one: in each, all channels together weigh the same."""
    return torch.stack([one / one.abs().mean().clamp_min(1e-30) for one in each]).mean(0)


def _matrices(weights: Weights) -> list[Tensor]:
    """Weights without what is one number for each channel, where there are such."""
    return [w for w in weights.values() if w.shape[1] > 1] or list(weights.values())


def _norm(weights: Weights, power: int) -> Tensor:
    return _joined([rows.norm(p=power, dim=1) for rows in _matrices(weights)])


def _scales(model: nn.Module, weights: Weights) -> Tensor | None:
    """What BatchNorms multiply the channels with."""
    modules = dict(model.named_modules())
    scales = [
        rows.abs().sum(1)
        for name, rows in weights.items()
        if name.endswith("weight") and isinstance(modules.get(name.rpartition(".")[0]), BatchNorm)
    ]
    return _joined(scales) if scales else None


def _asked(importance: Callable[[Weights], Tensor], weights: Weights, group: Group) -> Tensor:
    found = importance(weights)
    if not isinstance(found, Tensor) or tuple(found.shape) != (group.size,) or not bool(torch.isfinite(found).all()):
        raise NasValueError(
            explain(
                f"a function of importance returns one finite number for each of {group.size} {group.kind}",
                got=found,
                where=group.label,
                mend="lambda weights: sum(w.abs().sum(1) for w in weights.values())",
            )
        )
    return found.detach().float().cpu()


# On data.


@final
@dataclass(slots=True)
class _Seen:
    """What has come into a layer, for each of its input channels."""

    squares: Tensor
    sizes: Tensor
    positive: Tensor


def _by_activations(model: nn.Module, groups: Groups, importance: str, data: Iterable[Any]) -> list[Tensor]:
    modules, seen, handles = dict(model.named_modules()), dict[Slot, _Seen](), []
    readers = [slot for group in groups.groups for slot in group.slots if _reads(modules, slot)]
    for slot in readers:
        module = modules[slot[0].rpartition(".")[0]]

        def watch(module: nn.Module, args: Any, slot: Slot = slot) -> None:
            _take_down(seen, slot, args[0].detach(), 1 if isinstance(module, Convolution) else -1)

        handles.append(module.register_forward_pre_hook(watch))
    try:
        with torch.no_grad():
            for batch in data:
                _output(model.eval(), batch)
    finally:
        for handle in handles:
            handle.remove()
    tensors, found = named_tensors(model), []
    for number, group in enumerate(groups.groups):
        rows, each = _rows(tensors, groups, number), []
        for slot in group.slots:
            if slot not in seen:
                continue
            place, stats = groups.positions(number, slot), seen[slot]
            if importance == "activation":
                size = (stats.squares.cpu()[place].sum(1)).sqrt() * rows[slot].abs().sum(1).cpu()
            else:
                size = (stats.positive if importance == "apoz" else stats.sizes).cpu()[place].mean(1)
            each.append(size)
        weights = {f"{name} {dim}": w.cpu() for (name, dim), w in rows.items()}
        found.append(_joined(each) if each else _norm(weights, 2))
    return found


def _reads(modules: Mapping[str, nn.Module], slot: Slot) -> bool:
    """Whether a layer reads its input along a dimension of its weight."""
    path, _, leaf = slot[0].rpartition(".")
    module = modules[path]
    if isinstance(module, Convolution):
        return leaf == "weight" and slot[1] == 1 and module.groups == 1
    return leaf == "weight" and isinstance(module, nn.Linear) and slot[1] == 1


def _take_down(seen: dict[Slot, _Seen], slot: Slot, x: Tensor, dim: int) -> None:
    rows = x.movedim(dim, 0).flatten(1).double()
    now = _Seen(rows.square().sum(1), rows.abs().sum(1), (rows > 0).double().sum(1))
    before = seen.get(slot)
    if before is not None:
        now = _Seen(before.squares + now.squares, before.sizes + now.sizes, before.positive + now.positive)
    seen[slot] = now


def _by_gradients(model: nn.Module, groups: Groups, importance: str, data: Iterable[Any]) -> list[Tensor]:
    tensors = {name: t for name, t in named_tensors(model).items() if isinstance(t, nn.Parameter)}
    for parameter in tensors.values():
        parameter.requires_grad_(parameter.is_floating_point())
    found = [torch.zeros(group.size) for group in groups.groups]
    for batch in data:
        model.zero_grad()
        with torch.enable_grad():
            _loss(model.eval(), batch).backward()
        moved = {n: t.detach() * t.grad for n, t in tensors.items() if t.grad is not None}
        for number, group in enumerate(groups.groups):
            for slot in group.slots:
                if slot[0] in moved and moved[slot[0]].dim() > 1:
                    rows = _one(moved[slot[0]], groups, number, slot)
                    found[number] += rows.abs() if importance == "taylor" else -rows
    return found


def _one(product: Tensor, groups: Groups, number: int, slot: Slot) -> Tensor:
    places = groups.positions(number, slot).to(product.device)
    rows = product.index_select(slot[1], places.flatten()).movedim(slot[1], 0)
    return rows.reshape(len(places), -1).sum(1).float().cpu()


def _output(model: nn.Module, batch: Any) -> Any:
    """What a model makes of a batch: of its first part, where it is a pair of inputs and targets."""
    x = batch[0] if isinstance(batch, list | tuple) and len(batch) == 2 else batch
    place = next((p.device for p in model.parameters()), torch.device("cpu"))
    args, kwargs = read_example(x).on(place).arguments_for(model)
    return model(*args, **kwargs)


def _loss(model: nn.Module, batch: Any) -> Tensor:
    """The loss that a model says itself, or that of a classification or regression."""
    output = _output(model, batch)
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if isinstance(loss, Tensor):
        return loss
    logits = output if isinstance(output, Tensor) else None
    target = batch[1] if isinstance(batch, list | tuple) and len(batch) == 2 else None
    if logits is None or not isinstance(target, Tensor):
        raise NasValueError(
            explain(
                "gradients need a loss: data yields pairs (inputs, targets), or dicts for which a model returns one",
                got=batch,
                where="elastic",
                mend='importance="l2", or pairs of inputs and targets',
            )
        )
    target = target.to(logits.device)
    if target.is_floating_point():
        return functional.mse_loss(logits, target)
    return functional.cross_entropy(
        logits.flatten(0, -2) if target.dim() > 1 and logits.dim() == 3 else logits, target.flatten()
    )
