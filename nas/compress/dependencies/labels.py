"""What is known of the dimensions of a tensor: which unit each index along them belongs to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy

from nas.compress.dependencies.units import Lines, Units

Shape: TypeAlias = Sequence[int]
Places: TypeAlias = dict[int, int]
"""Dimension -> the dimension that it becomes."""

_MOST = 2**21
"""Units of one block; a larger one is tied together, which is safe and coarser."""


@final
@dataclass(frozen=True, slots=True)
class Block:
    """Dimensions of a tensor that share units: the index along them all is that of a unit.

    A dimension of a weight is a block of its own. Where it is viewed as (heads, channels of a head), the two dimensions
    are one block, which knows what either index stands for, so that nothing is lost when they are joined again.
    """

    dims: tuple[int, ...]
    lines: Lines
    """An axis for each of the dimensions, those that were outer ones first."""

    def line(self, dim: int) -> Lines:
        """The units, with those of one index along a dimension in one row."""
        return numpy.moveaxis(self.lines, self.dims.index(dim), 0).reshape(self.lines.shape[self.dims.index(dim)], -1)


Labels: TypeAlias = tuple[Block, ...]
"""Of one tensor. Dimensions in no block have a length that nothing here may change, or the length 1."""


@final
class Algebra:
    """How labels follow tensors through operations, with the ties that these demand.

    Attributes:
        units: the units, with their classes.
        sites: arrays of units of which only whole rows along one axis may be removed, for they are views of a tensor.
        made: units that weights make, in the order of their use.
        where: the module that is running, for reasons.
    """

    def __init__(self, units: Units) -> None:
        self.units = units
        self.sites: list[Lines] = []
        self.made: list[Lines] = []
        self.where = ""

    def fix(self, blocks: Iterable[Block], reason: str) -> None:
        """None of these can be removed."""
        for block in blocks:
            self.units.fix(block.lines, f"{self.where}: {reason}" if self.where else reason)

    def whole(self, block: Block, dims: Iterable[int]) -> Block | None:
        """A block without some of its dimensions, along which nothing is removed any more; None where none is left."""
        axes = tuple(axis for axis, dim in enumerate(block.dims) if dim in set(dims))
        if len(axes) == len(block.dims):
            return None
        left = tuple(dim for dim in block.dims if dim not in set(dims))
        return Block(left, self.units.tie_along(block.lines, axes))

    def settle(self, labels: Labels, dims: Iterable[int], reason: str) -> Labels:
        """Labels that know nothing of these dimensions: their lengths stay."""
        given, found = set(dims), []
        for block in labels:
            if not given & set(block.dims):
                found.append(block)
            elif (left := self.whole(block, given)) is None:
                self.fix([block], reason)
            else:
                found.append(left)
        return tuple(found)

    def trimmed(self, block: Block) -> Block:
        """The block without dimensions along which its units are of one class, unless that is all of them."""
        for axis in range(block.lines.ndim - 1, -1, -1):
            if block.lines.ndim > 1 and self.units.is_constant(block.lines, axis):
                dims = tuple(dim for dim in block.dims if dim != block.dims[axis])
                block = Block(dims, block.lines[(slice(None),) * axis + (0,)])
        return block

    # Operations.

    def moved(self, labels: Labels, places: Places) -> Labels:
        """Dimensions that stand elsewhere now."""
        return tuple(Block(tuple(places[dim] for dim in block.dims), block.lines) for block in labels)

    def sliced(self, labels: Labels, dim: int, index: slice | Lines) -> Labels:
        """Part of a dimension."""
        found = []
        for block in labels:
            if dim in block.dims:
                axis = block.dims.index(dim)
                lines = block.lines[(slice(None),) * axis + (index,)]
                if lines.shape[axis] == 1 and block.lines.shape[axis] > 1:
                    left = self._picked(block, dim, lines)
                    found += [] if left is None else [left]
                    continue
                block = Block(block.dims, lines)
            found.append(block)
        return tuple(found)

    def _picked(self, block: Block, dim: int, lines: Lines) -> Block | None:
        """What is left of a block of which a single index along a dimension is taken."""
        axis = block.dims.index(dim)
        if len(block.dims) == 1:
            self.fix([Block(block.dims, lines)], "a single channel is picked by its position")
            return None
        return Block(tuple(d for d in block.dims if d != dim), lines[(slice(None),) * axis + (0,)])

    def picked(self, labels: Labels, dim: int, position: int) -> Labels:
        """One index of a dimension, which is gone then."""
        left = self.sliced(labels, dim, slice(position, position + 1))
        return tuple(Block(tuple(d - (d > dim) for d in block.dims), block.lines) for block in left)

    def met(self, operands: Sequence[tuple[Labels, Sequence[bool]]], shape: Shape, reason: str) -> Labels:
        """Tensors that are aligned and computed with element by element.

        Args:
            operands: the labels of each, by the dimensions of the result, and which of these dimensions it has in full
                length; along the others it is repeated.
            shape: of the result.
            reason: why units cannot be removed that meet something of fixed length.
        """
        blocks = [[self.trimmed(block) for block in labels] for labels, _ in operands]
        plain: list[set[int]] = []
        for own, (_, full) in zip(blocks, operands, strict=True):
            labelled = {dim for block in own for dim in block.dims}
            plain.append({dim for dim in range(len(shape)) if full[dim] and shape[dim] > 1 and dim not in labelled})
        settled = set().union(*plain)
        if settled:
            blocks = [list(self.settle(tuple(own), settled, reason)) for own in blocks]
        return tuple(self._united(part) for part in _overlapping([block for own in blocks for block in own]))

    def _united(self, blocks: list[Block]) -> Block:
        """Blocks that share dimensions become one."""
        if any(set(block.dims) != set(blocks[0].dims) for block in blocks):
            blocks = self._outer(blocks)
        first = blocks[0]
        for block in blocks[1:]:
            order = [block.dims.index(dim) for dim in first.dims]
            self.units.tie(first.lines, block.lines.transpose(order))
        return first

    def _outer(self, blocks: list[Block]) -> list[Block]:
        """Of blocks that share some dimensions only, what is left when the outermost one alone may change."""
        largest = max(blocks, key=lambda block: len(block.dims))
        keep = largest.dims[0]
        found = []
        for block in blocks:
            left = self.whole(block, set(block.dims) - {keep})
            if left is None:
                self.fix([block], "it is shared by all parts of a view")
            else:
                found.append(left)
        return found

    def joined(self, operands: Sequence[Labels], shapes: Sequence[Shape], dim: int, reason: str) -> Labels:
        """A concatenation along a dimension."""
        pieces, rests = list[Block](), list[Labels]()
        for labels, shape in zip(operands, shapes, strict=True):
            found = next((self.trimmed(block) for block in labels if dim in block.dims), None)
            rest = [block for block in labels if dim not in block.dims]
            if found is not None and dim not in found.dims:
                rest.append(found)
                found = None
            if found is None:
                found = Block((dim,), self.units.make(shape[dim]))
                self.fix([found], "it is concatenated with something of fixed length")
            pieces.append(found)
            rests.append(tuple(rest))
        dims = pieces[0].dims if all(set(p.dims) == set(pieces[0].dims) for p in pieces) else (dim,)
        lines = [self._along(piece, dims) for piece in pieces]
        joint = Block(dims, numpy.concatenate(lines, dims.index(dim)))
        if len(dims) > 1:
            self.sites.append(joint.lines)
        size = [max(shape[d] for shape in shapes) for d in range(len(shapes[0]))]
        full = [d not in dims for d in range(len(size))]
        rest_labels = self.met([(rest, full) for rest in rests], size, reason)
        return (*self.settle(rest_labels, dims, reason), joint)

    def _along(self, block: Block, dims: Sequence[int]) -> Lines:
        """The units of a block along some of its dimensions, in this order."""
        left = self.whole(block, set(block.dims) - set(dims))
        assert left is not None
        return left.lines.transpose([left.dims.index(dim) for dim in dims])

    def reduced(self, labels: Labels, dims: Iterable[int]) -> Labels:
        """A sum, a mean, a largest one over some dimensions, which are still there, with the length 1."""
        given, found = set(dims), []
        for block in labels:
            left = self.whole(self.trimmed(block) if len(block.dims) > 1 else block, given)
            if left is not None:
                found.append(left)
        return tuple(found)

    def reshaped(self, labels: Labels, before: Shape, after: Shape) -> Labels:
        """A tensor that is read in the same order with other dimensions."""
        if not labels:
            return ()
        factors = _factors(before, after)
        if factors is None:
            self.fix(labels, "it is viewed in a way that takes channels and other dimensions apart")
            return ()
        sizes, old, new = factors
        parts = [self._factored(block, old, sizes) for block in labels]
        owner = {factor: number for number, block in enumerate(parts) for factor in block.dims}
        for made in new:
            owners = {owner[factor] for factor in made if factor in owner}
            if len(owners) > 1:
                for number in owners:
                    inside = set(parts[number].dims) & set(made)
                    self.fix([parts[number]], "it is flattened together with other channels")
                    for factor in inside | set(parts[number].dims):
                        owner.pop(factor, None)
        found = []
        for number, block in enumerate(parts):
            if block.dims and all(owner.get(factor) == number for factor in block.dims):
                found.append(self._merged(block, new, sizes))
        return tuple(found)

    def _factored(self, block: Block, old: Sequence[Sequence[int]], sizes: Sequence[int]) -> Block:
        """The block by factors of the shape."""
        dims = tuple(factor for dim in block.dims for factor in old[dim])
        lines = block.lines.reshape([sizes[factor] for factor in dims])
        if len(dims) > len(block.dims):
            self.sites.append(lines)
        return Block(dims, lines)

    def _merged(self, block: Block, new: Sequence[Sequence[int]], sizes: Sequence[int]) -> Block:
        """The block by dimensions of the new shape, with what it is repeated along."""
        block = self.trimmed(block)
        dims = [dim for dim, made in enumerate(new) if set(made) & set(block.dims)]
        size = math.prod(sizes[factor] for dim in dims for factor in new[dim])
        if size > _MOST:
            alone = {factor for dim in dims if set(new[dim]) <= set(block.dims) for factor in new[dim]}
            left = self.whole(block, set(block.dims) - (alone or {block.dims[0]}))
            assert left is not None
            block = left
            dims = [dim for dim, made in enumerate(new) if set(made) & set(block.dims)]
        dims.sort(key=lambda dim: min(block.dims.index(factor) for factor in new[dim] if factor in block.dims))
        order = [factor for dim in dims for factor in new[dim]]
        own = [factor for factor in order if factor in block.dims]
        lines = block.lines.transpose([block.dims.index(factor) for factor in own])
        lines = lines.reshape([sizes[factor] if factor in block.dims else 1 for factor in order])
        lines = numpy.broadcast_to(lines, [sizes[factor] for factor in order])
        return Block(tuple(dims), lines.reshape([math.prod(sizes[f] for f in new[dim]) for dim in dims]))


def _overlapping(blocks: list[Block]) -> list[list[Block]]:
    """Blocks that share dimensions, in groups."""
    groups: list[tuple[set[int], list[Block]]] = []
    for block in blocks:
        touched = [group for group in groups if group[0] & set(block.dims)]
        groups = [group for group in groups if group not in touched]
        dims = set(block.dims).union(*(group[0] for group in touched))
        groups.append((dims, [b for group in touched for b in group[1]] + [block]))
    return [found for _, found in groups]


def _factors(before: Shape, after: Shape) -> tuple[list[int], list[list[int]], list[list[int]]] | None:
    """The common refinement of two shapes: its lengths, and the factors of each dimension of either."""
    cuts = sorted({n for shape in (before, after) for n in _products(shape)})
    if any(b % a for a, b in zip([1, *cuts[:-1]], cuts, strict=True)):
        return None
    sizes = [b // a for a, b in zip([1, *cuts[:-1]], cuts, strict=True)]
    both = []
    for shape in (before, after):
        ends, start, parts = _products(shape), 1, []
        for size, end in zip(shape, ends, strict=True):
            parts.append([i for i, cut in enumerate(cuts) if start < cut <= end] if size > 1 else [])
            start = end
        both.append(parts)
    return sizes, both[0], both[1]


def _products(shape: Shape) -> list[int]:
    """Of the leading lengths; products are taken from the left."""
    found, product = [], 1
    for size in shape:
        product *= size
        found.append(product)
    return found
