"""How channels lie in a dimension, and where those of one architecture lie among those of all."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple, TypeAlias, final

import torch
from torch import Tensor

from nas.oneshot.paths.slicing import Index, Shape, block


class Segment(NamedTuple):
    """Neighbouring channels of one origin."""

    source: str
    """Where they come from: the path of the module that made a concatenated tensor, or `#` and its position there."""
    shape: Shape
    """The axes that they were flattened from; (channels,) where there was one."""
    inner: Found | None = None
    """How they lie among themselves, where that is more than one after the other."""


Layout: TypeAlias = tuple[Segment, ...]
"""The segments of a dimension, in their order."""
Found: TypeAlias = "Layout | str"
"""A layout, or why there is none."""


def plain(length: int) -> Layout:
    """Channels of one origin, one after the other."""
    return (Segment("", (length,)),)


@final
@dataclass(slots=True)
class _Span:
    """The channels of one source, as many as any architecture has of them."""

    shape: Shape
    fixed: bool = True
    """Whether they are as many everywhere: then they are used whole, however they lie among themselves."""
    leading: bool = True
    """Whether only the first axis differs, so that the leading ones are everywhere the same."""
    inner: Alignment | None = None
    """Of those that a module made, where they lie one after the other."""

    @property
    def length(self) -> int:
        return self.inner.length if self.nested and self.inner is not None else prod(self.shape)

    @property
    def nested(self) -> bool:
        """Whether it matters how they lie among themselves."""
        return not self.fixed and self.inner is not None and prod(self.shape[1:]) == 1


@final
@dataclass(slots=True)
class Alignment:
    """The channels of all architectures in one dimension: those of each source follow those of the one before.

    Example:
        >>> found = Alignment()
        >>> found.add((Segment("left", (2,)), Segment("right", (3,)))), found.add((Segment("right", (2,)),))
        (True, True)
        >>> found.length, found.index((Segment("right", (2,)),))
        (5, slice(2, 4, None))
    """

    _problem: str | None = None
    _spans: dict[str, _Span] = field(default_factory=dict)

    def add(self, layout: Found) -> bool:
        """Takes a layout in, and says whether it has brought something new."""
        if self._problem is not None:
            return False
        if isinstance(layout, str):
            self._problem = layout
            return True
        sources = {segment.source for segment in layout}
        if self._spans and sources != self._spans.keys() and any(s[:1] in ("", "#") for s in sources | {*self._spans}):
            self._problem = "the same channels are not concatenated everywhere, or not of outputs of the same modules"
            return True
        news = [self._add(segment) for segment in layout]
        return any(news)

    def _add(self, segment: Segment) -> bool:
        span = self._spans.get(segment.source)
        new = span is None
        if span is None:
            span = self._spans[segment.source] = _Span(segment.shape)
        shape, span.shape = _padded(segment.shape, span.shape), _padded(span.shape, segment.shape)
        if len(span.shape) != len(shape):
            self._problem = "the same channels are flattened from different numbers of dimensions"
            return True
        if span.shape != shape:
            joint = tuple(map(max, span.shape, shape))
            new = span.fixed or joint != span.shape
            span.leading &= shape[1:] == span.shape[1:]
            span.shape, span.fixed = joint, False
        if segment.source and prod(segment.shape[1:]) == 1:
            span.inner = span.inner or Alignment()
            new |= span.inner.add(segment.inner or plain(segment.shape[0]))
        return new

    @property
    def problem(self) -> str | None:
        """Why they cannot be aligned; None where they can."""
        inner = [span.inner.problem for span in self._spans.values() if span.nested and span.inner is not None]
        return self._problem or next((problem for problem in inner if problem is not None), None)

    @property
    def is_plain(self) -> bool:
        """Whether the channels of all architectures are the leading ones."""
        return self.problem is None and all(not s and span.leading for s, span in self._spans.items())

    @property
    def length(self) -> int:
        """Of the dimension."""
        return sum(span.length for span in self._spans.values())

    def index(self, layout: Found) -> Index | None:
        """Where the channels of a layout are; None where it was not taken in."""
        pieces = self._pieces(layout, 0)
        if pieces is None:
            return None
        if len(pieces) > 1 or isinstance(pieces[0], Tensor):
            lines = [torch.arange(i.start, i.stop, device="cpu") if isinstance(i, slice) else i for i in pieces]
            line = torch.cat(lines)
            first, last = int(line[0]), int(line[-1])
            straight = bool((line.diff() == 1).all())
            return slice(first, last + 1) if straight else line
        return pieces[0]

    def _pieces(self, layout: Found, start: int) -> list[Index] | None:
        if isinstance(layout, str):
            return None
        starts: dict[str, int] = {}
        for source, span in self._spans.items():
            starts[source], start = start, start + span.length
        found: list[Index] = []
        for segment in layout:
            known = self._spans.get(segment.source)
            if known is None:
                return None
            shape, begin = _padded(segment.shape, known.shape), starts[segment.source]
            if len(shape) != len(known.shape):
                return None
            if known.inner is None or not known.nested:
                if any(n > most for n, most in zip(shape, known.shape, strict=True)):
                    return None
                found.append(block(shape, known.shape, begin))
                continue
            inner = known.inner._pieces(segment.inner or plain(segment.shape[0]), begin)
            if inner is None:
                return None
            found += inner
        return found


def _padded(shape: Shape, other: Shape) -> Shape:
    """With as many axes as the other, where it has the last ones of that: one head of (heads, channels)."""
    missing = len(other) - len(shape)
    return (1,) * missing + shape if missing > 0 and shape == other[missing:] else shape
