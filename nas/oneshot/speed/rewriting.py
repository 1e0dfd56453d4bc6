"""Passes over a relaxed supernet that make it quicker, and leave its parameters, their names and the numbers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from nas._compat.checkpoints import checkpointed_part
from nas._compat.torch_internals import BatchNorm, has_hooks, hook_dicts, own_buffers, version_of
from nas.errors import NasValueError, explain
from nas.example_inputs import Example, Inputs, read_example
from nas.oneshot.relaxed import MixedDepth, MixedInput, MixedLayer, RelaxedSupernet, RemembersCheckpoints
from nas.oneshot.speed.chains import Prefix, Signature, shared_length, signature, steps_of, without_weights
from nas.oneshot.speed.fast_mixture import FastMixture
from nas.oneshot.speed.folding import Folded, FoldedLinear, LinearMap, foldable, linear_map
from nas.oneshot.speed.joined import Slot
from nas.oneshot.speed.shared_work import SharedInput, SumsAtOnce
from nas.oneshot.speed.side_by_side import SideBySide, chain_key
from nas.oneshot.speed.speed import Report, Speed
from nas.oneshot.speed.whole_passes import apply_whole, cells
from nas.space import is_zero

Steps = tuple[nn.Module, ...]


def optimise(supernet: RelaxedSupernet, example: Example | Inputs, speed: Speed | None = None) -> Report:
    """Makes the mixtures of a supernet quicker; what they compute stays the same, but for the rounding of sums.

    The model is run once on the example, to see which mixtures read the same tensor. Parameters, their names,
    checkpoints and extraction stay as they are. What `Speed` says is decided anew by each call after `Report.undo`.

    Args:
        supernet: not yet optimised.
        example: what the model is called with (see `nas.profile.Example`); a small batch will do.
        speed: what to do; all that is exact where omitted.

    Returns:
        What was done and why the rest was not; it can undo it.

    Example:
        >>> from nas import LayerChoice, ModelSpace
        >>> kernels = {str(k): lambda k=k: nn.Conv2d(1, 4, k, padding=k // 2) for k in (1, 3, 5)}
        >>> supernet = RelaxedSupernet(ModelSpace(lambda: LayerChoice(kernels, label="kernel")))
        >>> print(optimise(supernet, (torch.zeros(1, 1, 8, 8),)))
        Folded into one:
          LayerChoice 'kernel': 1, 3, 5 as one 5x5 convolution
        The whole:
          channels lie together in memory
    """
    speed = Speed() if speed is None else speed
    report = Report()
    inputs = read_example(example)
    reads = _reads(supernet, inputs)
    # What is computed again by itself shares nothing with its surroundings.
    apart = cells(supernet.model) if speed.checkpoint_cells else []
    inside = {module: i for i, cell in enumerate(apart) for module in cell.modules()}
    parts = _checkpointed(supernet, inputs)
    groups: dict[tuple[int, int, int, int], list[_Reader]] = {}
    for layer in (module for module in supernet.model.modules() if isinstance(module, MixedLayer)):
        found = [read for read in reads if read.layer is layer]
        if len(found) != 1 or found[0].x is None or _heard(layer):
            report.kept.append(f"LayerChoice {layer.label!r}: {_why_not(found)}")
            continue
        read = found[0]
        assert read.x is not None
        group = groups.setdefault((id(read.x), read.version, inside.get(layer, -1), parts.get(layer, -1)), [])
        group.append(_Reader(layer, read.x, speed, report))
    hubs = [_connect(readers, supernet.model, speed, report) for readers in groups.values()]
    for mixed in supernet.model.modules():
        if isinstance(mixed, MixedInput) and mixed.adds and speed.share:
            mixed.joins = True
            report.inputs.append(mixed)
    forget = _Forget(hubs, [layer.quick for layer in report.layers if isinstance(layer.quick, FastMixture)])
    report.handles.append(supernet.model.register_forward_pre_hook(forget.before))
    report.handles.append(supernet.model.register_forward_hook(forget.after))
    apply_whole(supernet.model, inputs, speed, report)
    return report


@dataclass(kw_only=True, eq=False)
class _Read:
    """A call of a mixture."""

    layer: MixedLayer
    x: Tensor | None
    """What it read; None where it takes or yields something else than one tensor."""
    version: int = 0


def _reads(supernet: RelaxedSupernet, example: Inputs) -> list[_Read]:
    """The calls of mixtures in a forward pass in which everything is computed."""
    found: list[_Read] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        assert isinstance(module, MixedLayer)
        one = len(args) == 1 and not kwargs and isinstance(args[0], Tensor) and isinstance(output, Tensor)
        found.append(
            _Read(layer=module, x=args[0], version=version_of(args[0])) if one else _Read(layer=module, x=None)
        )

    layers = [module for module in supernet.model.modules() if isinstance(module, MixedLayer)]
    handles = [layer.register_forward_hook(note, with_kwargs=True) for layer in layers]
    try:
        with supernet.undisturbed(), torch.no_grad():
            supernet.architecture.mix()
            supernet.call(example)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _checkpointed(supernet: RelaxedSupernet, example: Inputs) -> dict[MixedLayer, int]:
    """The mixtures that stand in the model's own activation checkpoints while it is trained -> which of these.

    What is computed again by itself shares nothing with its surroundings.
    """
    found: dict[MixedLayer, int] = {}
    numbers: dict[int, int] = {}
    parts: list[object] = []  # kept, so that no two have one id

    def note(module: nn.Module, args: Any) -> None:
        part = checkpointed_part()
        if isinstance(module, MixedLayer) and part is not None:
            parts.append(part)
            found[module] = numbers.setdefault(id(part), len(numbers))

    layers = [module for module in supernet.model.modules() if isinstance(module, MixedLayer)]
    buffers = {buffer: buffer.clone() for buffer in supernet.model.buffers()}
    modules = list(supernet.model.modules())
    counted = [(place, dict(place)) for part in modules for place in (vars(part), own_buffers(part))]
    handles = [layer.register_forward_pre_hook(note) for layer in layers]
    nothing_kept = torch.autograd.graph.saved_tensors_hooks(lambda tensor: None, lambda none: none)
    try:
        with supernet.undisturbed(), torch.enable_grad(), nothing_kept:
            supernet.architecture.mix()
            supernet.model.train()
            supernet.call(example)
    except Exception:  # A batch of one, targets that are missing: what it does in training is seen there.
        found.clear()
    finally:
        for handle in handles:
            handle.remove()
        for place, before in counted:
            place.clear()
            place.update(before)
        with torch.no_grad():
            for buffer, number in buffers.items():
                buffer.copy_(number)
    return found


def _heard(layer: MixedLayer) -> bool:
    """Whether somebody else than the supernet listens to its calls."""
    return any(
        not isinstance(getattr(hook, "__self__", None), RemembersCheckpoints)
        for place in hook_dicts(layer)
        for hook in place.values()
        if callable(hook)
    )


def _why_not(found: Sequence[_Read]) -> str:
    if not found:
        return "it was not called with the example"
    if len(found) > 1:
        return "it is called more than once in a forward pass"
    return (
        "it takes or yields something else than one tensor" if found[0].x is None else "somebody listens to its calls"
    )


class _Reader:
    """A mixture that reads one tensor: its candidates as chains, and what of them is folded."""

    def __init__(self, layer: MixedLayer, x: Tensor, speed: Speed, report: Report) -> None:
        self.layer, self.x = layer, x
        self.chains = [steps_of(candidate) for candidate in layer.candidates]
        self.zeros = [i for i, chain in enumerate(self.chains) if _is_zero(chain, x)]
        self.folds: list[tuple[Steps, Folded | FoldedLinear]] = []
        if speed.fold:
            self._fold(report)
        folded = {i for _, fold in self.folds for i in fold.maps}
        self.alone = [i for i in range(len(self.chains)) if i not in folded and i not in self.zeros]
        for i in self.alone if speed.fold else ():
            report.kept.append(f"{layer.answers[i]!r} is not folded: {self._why_not(i)}")

    def _fold(self, report: Report) -> None:
        left = {i: chain for i, chain in enumerate(self.chains) if i not in self.zeros}
        while True:
            options = _foldings(left, self.x)
            if not options:
                return
            prefix, fold = max(options, key=lambda option: len(option[1].maps))
            self.folds.append((prefix, fold))
            names = ", ".join(str(self.layer.answers[i]) for i in fold.maps)
            behind = "".join(f" behind {type(step).__name__}" for step in prefix)
            report.folded.append(f"LayerChoice {self.layer.label!r}: {names} as one {fold.name}{behind}")
            left = {i: chain for i, chain in left.items() if i not in fold.maps}

    def _why_not(self, position: int) -> str:
        chain = self.chains[position]
        for step in chain[shared_length(chain) :]:
            if isinstance(step, BatchNorm):
                return "a batch norm is linear only once its statistics are known"
            if not isinstance(step, nn.Conv2d | nn.Linear):
                return f"{type(step).__name__} is not known to be linear"
            if has_hooks(step):
                return "somebody listens to its calls"
        if any(not _linear(step) for step in chain[: shared_length(chain)]) and len(chain) == shared_length(chain):
            return f"{type(chain[-1]).__name__} is not linear" if chain else ""
        return "no other candidate is linear behind the same steps, reads as far, and is cheaper together with it"


def _linear(step: nn.Module) -> bool:
    return isinstance(step, nn.AvgPool2d) and (step.count_include_pad or not step.padding)


def _is_zero(chain: Steps, x: Tensor) -> bool:
    """Whether a candidate is no connection that really yields zeros, and nothing is lost where it is not called."""
    if len(chain) != 1 or not is_zero(chain[0]) or list(chain[0].parameters()) or has_hooks(chain[0]):
        return False
    with torch.no_grad():
        return not chain[0](x + 1).any()


def _foldings(chains: dict[int, Steps], x: Tensor) -> list[tuple[Steps, Folded | FoldedLinear]]:
    """What can be folded, with the steps that come first."""
    maps: dict[tuple[Signature, ...], dict[int, LinearMap]] = {}
    layers: dict[tuple[Signature, ...], dict[int, nn.Linear | None]] = {}
    firsts: dict[tuple[Signature, ...], Steps] = {}
    for position, chain in chains.items():
        for number in range(shared_length(chain) + 1):
            prefix, rest = chain[:number], chain[number:]
            key = tuple(known for step in prefix if (known := signature(step)) is not None)
            firsts.setdefault(key, prefix)
            flat = x.dim() != 4 or any(isinstance(step, nn.Flatten) for step in prefix)
            if not flat and (mapping := linear_map(rest, x.shape[1])) is not None:
                maps.setdefault(key, {})[position] = mapping
            if flat and (not rest or (len(rest) == 1 and type(rest[0]) is nn.Linear and not has_hooks(rest[0]))):
                layer = rest[0] if rest else None
                layers.setdefault(key, {})[position] = layer if isinstance(layer, nn.Linear) else None
    found: list[tuple[Steps, Folded | FoldedLinear]] = []
    for key, group in maps.items():
        if len(best := foldable(group)) > 1:
            found.append((firsts[key], Folded(best)))
    for key, linear in layers.items():
        if alike := _alike(linear):
            found.append((firsts[key], FoldedLinear(alike)))
    return found


def _alike(layers: dict[int, nn.Linear | None]) -> dict[int, nn.Linear | None]:
    """The linear layers of one shape, and the identity where that keeps the shape; at least two layers, or nothing."""
    shapes: dict[tuple[int, int], dict[int, nn.Linear | None]] = {}
    for position, layer in layers.items():
        if layer is not None:
            shapes.setdefault((layer.in_features, layer.out_features), {})[position] = layer
    best = max(shapes.items(), key=lambda item: len(item[1]), default=None)
    if best is None or len(best[1]) < 2:
        return {}
    (inside, out), found = best
    identities = {i: None for i, layer in layers.items() if layer is None} if inside == out else {}
    return {**found, **identities}


def _connect(readers: Sequence[_Reader], model: nn.Module, speed: Speed, report: Report) -> SharedInput:
    """Gives the mixtures that read one tensor what they share."""
    chains: dict[object, dict[Slot, Steps]] = {}
    for number, reader in enumerate(readers):
        for i in reader.alone if speed.merges else ():
            key = chain_key(reader.chains[i])
            if key is not None:
                chains.setdefault(key, {})[number, i] = reader.chains[i]
    for group in chains.values():
        if len(group) > 1:
            names = ", ".join(type(step).__name__ for step in next(iter(group.values())))
            report.merged.append(f"{len(group)} times {names}")
    every = {place: steps for group in chains.values() for place, steps in group.items()}
    merged = SideBySide(every, everywhere=speed.merge is True) if len(every) > 1 else None
    layers = [reader.layer for reader in readers]
    plain = {
        (number, i): Prefix.of(reader.chains[i])
        for number, reader in enumerate(readers)
        for i in reader.alone
        if without_weights(reader.chains[i]) == len(reader.chains[i])
    }
    sums = SumsAtOnce(layers, plain) if speed.share else None
    shared = SharedInput(len(readers), share=speed.share, merged=merged, live=_Live(layers, model), sums=sums)
    for number, reader in enumerate(readers):
        reader.layer.quick = FastMixture(reader.layer, reader.chains, reader.folds, reader.zeros, shared, number)
        report.layers.append(reader.layer)
    if speed.share:
        _say_shared(readers, report)
    return shared


def _say_shared(readers: Sequence[_Reader], report: Report) -> None:
    counts: dict[tuple[Signature, ...], tuple[str, int]] = {}
    for reader in readers:
        for i in reader.alone:
            chain = reader.chains[i]
            steps = chain[: shared_length(chain)]
            key = tuple(found for step in steps if (found := signature(step)) is not None)
            if key:
                name = ", ".join(type(step).__name__ for step in steps)
                counts[key] = name, counts.get(key, (name, 0))[1] + 1
    for name, number in counts.values():
        if number > 1:
            report.shared.append(f"{name} for {number} candidates of {len(readers)} mixtures")


@final
class _Live:
    """Says which candidates are computed in this forward pass, and are not called by themselves.

    Args:
        layers: the mixtures that read one tensor.
        model: they are in.
    """

    def __init__(self, layers: Sequence[MixedLayer], model: nn.Module) -> None:
        self._layers = list(layers)
        names = {id(module): name for name, module in model.named_modules()}
        self._above = [_above(names[id(layer)], model) for layer in layers]

    def __call__(self) -> list[tuple[int, ...]]:
        """For each mixture the positions of its candidates."""
        return [self._positions(layer, above) for layer, above in zip(self._layers, self._above, strict=True)]

    @staticmethod
    def _positions(layer: MixedLayer, above: Sequence[tuple[nn.Module, int]]) -> tuple[int, ...]:
        if not all(_reaches(module, index) for module, index in above):
            return ()
        active = layer.mixing.active[layer.label]
        heard = layer.quick.heard if isinstance(layer.quick, FastMixture) else ()
        return tuple(i for i in active if i not in heard) if heard else active


def _above(name: str, model: nn.Module) -> list[tuple[nn.Module, int]]:
    """The mixtures that a module stands in, and which of their parts it is."""
    parts = name.split(".") if name else []
    found: list[tuple[nn.Module, int]] = []
    for i in range(len(parts)):
        module = model.get_submodule(".".join(parts[:i]))
        if isinstance(module, MixedLayer | MixedInput) and i + 1 < len(parts):
            found.append((module, int(parts[i + 1])))
        elif isinstance(module, MixedDepth):
            found.append((module, int(parts[i])))
    return found


def _reaches(module: nn.Module, index: int) -> bool:
    if isinstance(module, MixedLayer):
        return index in module.mixing.active[module.label]
    assert isinstance(module, MixedInput | MixedDepth)
    return module.takes(index)


@final
class _Forget:
    """Lets go of what mixtures share, before a forward pass and after it.

    Args:
        shared: by mixtures.
        fast: mixtures, which call those of their candidates themselves that somebody has begun to listen to.
    """

    def __init__(self, shared: Sequence[SharedInput], fast: Sequence[FastMixture]) -> None:
        self._shared, self._fast = tuple(shared), tuple(fast)

    def before(self, module: nn.Module, args: Any) -> None:
        """Of a forward pass that ended early."""
        self._clear()
        if not torch.compiler.is_compiling():
            for fast in self._fast:
                fast.look_for_listeners()

    def _clear(self) -> None:
        for shared in self._shared:
            shared.clear()

    def after(self, module: nn.Module, args: Any, output: Any) -> None:
        """Raises where layers were computed side by side with one that was not called."""
        unread = any(shared.unread for shared in self._shared)
        self._clear()
        if unread:
            raise NasValueError(
                explain(
                    "mixtures that read the same tensor in the example are computed side by side, but now one of them "
                    "was not called",
                    where="the forward pass of the supernet",
                    mend="Speed(merge=False)",
                )
            )
