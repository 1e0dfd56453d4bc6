"""How a mixture of layers is computed quickly: folded, shared, side by side, and the rest one by one."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import final

import torch
from torch import Tensor, nn

from nas._compat.torch_internals import has_hooks, hook_dicts, version_of
from nas.domains import Answer
from nas.oneshot.relaxed import MixedLayer, Terms, check_alike
from nas.oneshot.speed.chains import Prefix, without_weights
from nas.oneshot.speed.compilation import Compiler, Fold, Piece
from nas.oneshot.speed.folding import Folded, FoldedLinear
from nas.oneshot.speed.shared_work import SharedInput, run_step


@final
class FastMixture:
    """Computes what a MixedLayer does.

    Args:
        layer: that it computes.
        chains: the steps of each of its candidates.
        folds: the steps that come first, and what is folded behind them.
        zeros: positions of candidates that yield zeros.
        shared: what it shares with the mixtures that read the same tensor.
        reader: its number among these.

    Attributes:
        heard: positions of candidates that somebody listens to, which are called as they are.
        compiler: compiles what is computed here; None where nothing is compiled.
    """

    def __init__(
        self,
        layer: MixedLayer,
        chains: Sequence[tuple[nn.Module, ...]],
        folds: Sequence[tuple[tuple[nn.Module, ...], Folded | FoldedLinear]],
        zeros: Sequence[int],
        shared: SharedInput,
        reader: int,
    ) -> None:
        self._layer, self._chains = layer, tuple(chains)
        self._folds = tuple((Prefix.of(steps), fold) for steps, fold in folds)
        self._zeros, self._shared, self._reader = frozenset(zeros), shared, reader
        self._prefixes = tuple(Prefix.of(chain[: without_weights(chain)]) for chain in self._chains)
        self.heard: frozenset[int] = frozenset()
        self._leaving: set[tuple[int, bool]] = set()
        """Candidates, by mode, that were seen to leave what they share with others as it is."""
        self.compiler: Compiler | None = None
        self._pieces: dict[Hashable, Piece] = {}
        self._hooks = [place for module in layer.candidates.modules() for place in hook_dicts(module)]

    @property
    def computes(self) -> bool:
        """Whether there is anything to compile: more than what mixtures share, and the sum."""
        return bool(self._folds) or any(map(self._rest, range(len(self._chains))))

    def look_for_listeners(self) -> None:
        """Notes which candidates hold modules whose calls somebody listens to by now."""
        if any(self._hooks) or self.heard:
            candidates = enumerate(self._layer.candidates)
            self.heard = frozenset(i for i, module in candidates if any(map(has_hooks, module.modules())))

    def terms(self, x: Tensor) -> Sequence[Terms]:
        """What there is to add up, and the weights of it."""
        mixing, label = self._layer.mixing, self._layer.label
        weights, active = mixing.weights[label], mixing.active[label]
        self._shared.open(x)
        summed = self._shared.take_sum(self._reader)
        found: list[Terms] = []
        computed = dict.fromkeys(i for i in active if i not in self._zeros or i in self.heard)
        if summed is not None:
            found.append(([summed[0]], None))
            for i in summed[1]:
                del computed[i]
        folds: list[tuple[Prefix, Fold]] = []
        for prefix, fold in self._folds:
            live = tuple(i for i in computed if i in fold.maps and i not in self.heard)
            if len(live) > 1:
                folds.append((prefix, (fold, live)))
                for i in live:
                    del computed[i]
        compiler = self.compiler
        # Of candidates that are drawn each is compiled by itself: there are too many sets of them.
        if compiler is not None and (computed or folds) and len(active) == len(self._chains) and not self.heard:
            piece = self._whole(compiler, tuple(computed), folds)
            total = self._run_whole(compiler, piece, x, tuple(computed), folds, weights) if piece.compilable else None
            if total is not None:
                found.append(([total], None))
                computed, folds = {}, []
            compiler = None if piece.compilable else compiler
        if folds:
            found.append(
                ([fold.run(self._shared.prefix(x, prefix), weights, live) for prefix, (fold, live) in folds], None)
            )
        if not computed and not found:
            computed = dict.fromkeys(active)
        if computed:
            outputs = [self._run(i, x, compiler) if i in computed else None for i in range(len(self._chains))]
            found.append((outputs, weights))
        self._shared.close(self._reader)
        self._check(found)
        return found

    def _check(self, found: Sequence[Terms]) -> None:
        """Names the candidates that cannot be mixed, if any."""
        named: dict[Answer, object] = {}
        for outputs, weights in found:
            names = [f"computed with others {i}" for i in range(len(named), len(named) + len(outputs))]
            named.update(zip(names if weights is None else map(repr, self._layer.answers), outputs, strict=True))
        check_alike(f"LayerChoice {self._layer.label!r}", "candidate", named)

    def _run(self, position: int, x: Tensor, compiler: Compiler | None) -> Tensor:
        if position in self.heard:
            called: Tensor = self._layer.candidates[position](x)
            return called
        made = self._shared.take((self._reader, position))
        if made is not None:
            return made
        x, steps = self._shared.prefix(x, self._prefixes[position]), self._rest(position)
        if compiler is not None:
            piece = self._pieces.get(position)
            if piece is None:
                name = f"candidate {self._layer.answers[position]!r} of LayerChoice {self._layer.label!r}"
                piece = self._pieces[position] = compiler.piece(name, [steps])
            if (found := compiler.run(piece, [x])) is not None:
                return found
        if not steps or not self._prefixes[position].steps:
            return _run_steps(steps, x)
        # Others hold what is shared; who is not known to leave it as it is gets a copy.
        if torch.compiler.is_compiling():
            return _run_steps(steps, x.clone())
        if x.is_inference():  # of which nobody keeps anything
            return _run_steps(steps, x)
        place = position, self._layer.training
        if place in self._leaving:
            return _run_steps(steps, x)
        own = x.clone()
        found = _run_steps(steps, own)
        if version_of(own) == 0:
            self._leaving.add(place)
        return found

    def _rest(self, position: int) -> tuple[nn.Module, ...]:
        """The steps of a candidate behind those that are shared."""
        return self._chains[position][len(self._prefixes[position].steps) :]

    def _whole(self, compiler: Compiler, computed: tuple[int, ...], folds: Sequence[tuple[Prefix, Fold]]) -> Piece:
        """The piece that is the whole mixture."""
        made = tuple(i for i in computed if self._shared.made((self._reader, i)) is not None)
        key = made, computed, tuple(live for _, (_, live) in folds)
        if key not in self._pieces:
            chains = [() if i in made else self._rest(i) for i in computed]
            name = f"LayerChoice {self._layer.label!r}"
            self._pieces[key] = compiler.piece(name, chains, computed, [fold for _, fold in folds])
        return self._pieces[key]

    def _run_whole(
        self,
        compiler: Compiler,
        piece: Piece,
        x: Tensor,
        computed: tuple[int, ...],
        folds: Sequence[tuple[Prefix, Fold]],
        weights: Tensor,
    ) -> Tensor | None:
        made = {i: y for i in computed if (y := self._shared.made((self._reader, i))) is not None}
        inputs = [made[i] if i in made else self._shared.prefix(x, self._prefixes[i]) for i in computed]
        inputs += [self._shared.prefix(x, prefix) for prefix, _ in folds]
        total = compiler.run(piece, inputs, weights)
        for i in made if total is not None else ():
            self._shared.take((self._reader, i))
        return total


def _run_steps(steps: Sequence[nn.Module], x: Tensor) -> Tensor:
    for step in steps:
        x = run_step(step, x)
    return x
