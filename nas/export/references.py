"""What the model that was given computes on fresh inputs, of several sizes: the references for its file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import torch
from torch import Tensor, nn

from nas.errors import NasValueError, explain
from nas.export.fresh_inputs import RECIPES, resized
from nas.export.given_model import GivenModel, run
from nas.export.one_line import one_line
from nas.export.onnx_call import BATCH, Call
from nas.export.onnx_graph import Dynamic

Sizes: TypeAlias = Mapping[str, int]
"""The name of a dynamic dimension -> its size."""

_BATCHES = (1, 2, 3, 5)
"""Batch 1 is where graphs and models part most often: it broadcasts, and `squeeze` removes it."""


@final
@dataclass(frozen=True, kw_only=True)
class Reference:
    """One call of the model that was given, and what came of it.

    Args:
        sizes: of the dynamic dimensions that are not of the size that the example has.
        inputs: the tensors that it was called with.
        expected: place -> output.
        fresh: whether an input has other values than the example.
    """

    sizes: Sizes
    inputs: Sequence[Tensor]
    expected: dict[str, Tensor]
    fresh: bool

    @property
    def undefined(self) -> int:
        """How many outputs have values that are no numbers, of which little can be told."""
        return sum(int(output.isnan().any()) for output in self.expected.values())

    @property
    def where(self) -> str:
        return ", ".join(f"at {name} {size}" for name, size in self.sizes.items())


@final
class References:
    """Calls of the model that was given, each on fresh inputs.

    Args:
        given: the model.
        twin: its copy on the CPU, which shows whether inputs will do, as an index too large stops a whole GPU; None
            for a model that is on the CPU itself.
        call: the example.
        asked: names of the dimensions that the user wants to have any size.
        batch: the dimensions of the batch, where it is to have any size.
    """

    def __init__(self, given: GivenModel, twin: nn.Module | None, call: Call, asked: Dynamic, batch: Dynamic) -> None:
        self._given, self._twin, self._call = given, twin, call
        self._asked, self._rng = asked, torch.Generator().manual_seed(0)
        names = {name: {**asked.get(name, {}), **batch.get(name, {})} for name in call.tensors}
        self.dynamic: Dynamic = {name: dims for name, dims in names.items() if dims}
        self._has_batch = bool(batch)

    def usual(self) -> list[Reference]:
        """At other sizes of each dynamic dimension, and of all at once.

        Raises:
            NasValueError: the model runs at some size of the batch alone, or at no other one of a dimension.
        """
        sizes = self._sizes({})
        found = [self.at({BATCH: size}) for size in _BATCHES] if self._has_batch else []
        together = {BATCH: 3} if self._has_batch else {}
        for name in sorted({name for names in self._asked.values() for name in names.values()}):
            size = sizes[name]
            others = self.where_it_runs(name, sorted({*_BATCHES, size + 1, 2 * size} - {size}))
            if not others:
                rule = f"{name!r} can only be a dynamic dimension if the model runs at another size of it than {size}"
                raise NasValueError(explain(rule, where="to_onnx"))
            found += others
            together[name] = others[-1].sizes[name]
        return [*found, self.at(together)] if len(together) > 1 else found

    def where_it_runs(self, name: str, sizes: Iterable[int]) -> list[Reference]:
        """At those of the sizes at which the model runs."""
        found = []
        for size in sizes:
            with contextlib.suppress(NasValueError):
                found.append(self.at({name: size}))
        return found

    def beyond(self, sizes: Iterable[int]) -> list[Reference]:
        """At sizes of any dimension for which torch is not sure."""
        names = sorted(self._sizes({}))
        return [reference for name in names for reference in self.where_it_runs(name, sizes)]

    def to_trace(self) -> list[Tensor]:
        """The example, with two of each dynamic dimension at the least: torch takes a 1 for a constant."""
        sizes = {name: max(size, 2) for name, size in self._sizes({}).items()}
        return [resized(tensor, self._shape(name, sizes)) for name, tensor in self._call.tensors.items()]

    def example(self) -> Reference:
        """The example itself.

        Raises:
            NasValueError: the model does not run on it.
        """
        inputs = [tensor.clone() for tensor in self._call.tensors.values()]
        try:
            return Reference(sizes={}, inputs=inputs, expected=self._outputs(inputs), fresh=False)
        except NasValueError as error:
            shapes = [tuple(tensor.shape) for tensor in inputs]
            rule = f"the model must run on a batch of {shapes[0][0] if shapes[0] else 1} ({one_line(error)})"
            if not all(shapes) or len({shape[0] for shape in shapes}) > 1:
                rule = "the first dimension of example_input must be the batch, the same in each tensor, except for a "
                rule += f"model that takes others; this one does not ({one_line(error)})"
            raise NasValueError(explain(rule, got=shapes, where="to_onnx")) from error

    def at(self, changed: Sizes) -> Reference:
        """Fresh values, and some sizes other than those of the example.

        Raises:
            NasValueError: the model does not run on them.
        """
        sizes, found, problem = self._sizes(changed), list[Reference](), NasValueError()
        for recipe in RECIPES:
            tensors = [(tensor, self._shape(name, sizes)) for name, tensor in self._call.tensors.items()]
            inputs = [recipe(tensor, shape, self._rng) for tensor, shape in tensors]
            try:
                expected = self._outputs(inputs)
            except NasValueError as error:
                problem = error  # the last: on the values of the example itself
                continue
            fresh = not all(torch.equal(made, resized(*each)) for made, each in zip(inputs, tensors, strict=True))
            found.append(Reference(sizes=changed, inputs=inputs, expected=expected, fresh=fresh))
            if not found[-1].undefined:
                break
        if not found:
            where = " and ".join(f"a {name} of {size}" for name, size in changed.items()) or "the example"
            raise NasValueError(explain(f"the model must run on {where} ({one_line(problem)})")) from problem
        return min(found, key=lambda reference: reference.undefined)

    def _shape(self, name: str, sizes: Sizes) -> list[int]:
        names = self.dynamic.get(name, {})
        return [sizes[names[dim]] if dim in names else size for dim, size in enumerate(self._call.tensors[name].shape)]

    def _sizes(self, changed: Sizes) -> dict[str, int]:
        of_example = {
            symbol: self._call.tensors[name].shape[dim]
            for name, names in self.dynamic.items()
            for dim, symbol in names.items()
        }
        return {**of_example, **changed}

    def _outputs(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        if self._twin is not None and not self._given.on_cpu:
            run(self._twin, self._call, inputs)
        return self._given.run(self._call, inputs)
