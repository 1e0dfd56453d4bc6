"""Values that remember which choices they come from, and tell when plain Python decides something by them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeAlias, final

from nas.domains import Answer
from nas.space.mutables import ChosenInt
from nas.space.questions import Question

Labels: TypeAlias = frozenset[str]
Place: TypeAlias = tuple[Any, ...]
Decided: TypeAlias = Callable[[Labels, Place, Answer], None]
"""Is told the labels that took part in a comparison, where in the program it stands, and what was compared with."""

_ARITHMETIC = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "divmod", "lshift", "rshift", "and", "or", "xor"),
    *("radd", "rsub", "rmul", "rtruediv", "rfloordiv", "rmod", "rpow", "rdivmod", "rlshift", "rrshift", "rand", "ror"),
    *("rxor", "neg", "pos", "abs", "invert", "round", "trunc", "floor", "ceil"),
)
_DECIDING = ("eq", "ne", "lt", "le", "gt", "ge", "bool", "len", "hash", "contains")
_FORGETTING = ("int", "float", "str", "repr", "format")
"""What comes of these has no memory, so that nothing tells what is decided by it."""
_CALLERS = 4
"""So many callers tell one use of a helper function from another."""


class _Traced:
    """What the three kinds have in common. A copy is the same value; what is pickled has no memory."""

    labels: Labels
    decided: Decided
    plain: Any

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: object) -> Any:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self.plain), (self.plain,)


@final
class TracedInt(_Traced, ChosenInt):
    """An int of a ValueChoice, or one that was computed from some."""

    @property
    def plain(self) -> int:
        """The same int without a memory."""
        return int.__add__(self, 0)


@final
class TracedFloat(_Traced, float):
    """A float of a ValueChoice, or one that was computed from some."""

    @property
    def plain(self) -> float:
        """The same float without a memory."""
        return float.__add__(self, 0.0)


@final
class TracedStr(_Traced, str):
    """A str of a ValueChoice."""

    @property
    def plain(self) -> str:
        """The same str without a memory."""
        return "".join(iter(self))


@final
class TracedTuple(_Traced, tuple[Any, ...]):
    """A tuple of a ValueChoice, or a part of one; its items remember too."""

    @property
    def plain(self) -> tuple[Any, ...]:
        """The same tuple without a memory."""
        return tuple(tuple.__iter__(self))

    def __iter__(self) -> Iterator[Any]:
        return (_remember(item, self.labels, self.decided) for item in tuple.__iter__(self))

    def __getitem__(self, index: Any) -> Any:
        return _remember(tuple.__getitem__(self, index), self.labels, self.decided)


_KINDS: dict[type, Any] = {int: TracedInt, float: TracedFloat, str: TracedStr, tuple: TracedTuple}


def traced(question: Question, answer: Answer, decided: Decided) -> Answer:
    """The answer as a value that remembers its choice; a bool or a None as it is, for these cannot: see `is_opaque`."""
    value = _remember(answer, frozenset({question.label}), decided)
    if isinstance(value, TracedInt):
        value.question = question
    return value


def is_opaque(answer: Answer) -> bool:
    """Whether an answer is, or has in it, what cannot remember its choice, or forgets it in the methods of a str."""
    return any(map(is_opaque, answer)) if isinstance(answer, tuple) else type(answer) not in (int, float)


def _remember(answer: Any, labels: Labels, decided: Decided) -> Any:
    kind = _KINDS.get(type(answer))
    if kind is None:
        return answer
    value = kind(answer)
    value.labels, value.decided = labels, decided
    return value


def _labels(values: tuple[object, ...]) -> Labels:
    return frozenset().union(*(value.labels for value in values if isinstance(value, _Traced)))


def _computes(base: type, name: str) -> Callable[..., Any]:
    compute = getattr(base, name)

    def method(self: Any, *others: Any) -> Any:
        result = compute(self, *others)
        if result is NotImplemented:
            return result
        labels = self.labels | _labels(others)
        return _remember(result, labels, self.decided)

    return method


def _decides(base: type, name: str) -> Callable[..., Any]:
    compute = getattr(base, name)

    def method(self: Any, *others: Any) -> Any:
        place = _place(_caller())
        if place is not None:
            with_what = others[0] if others and not isinstance(others[0], _Traced) else None
            self.decided(self.labels | _labels(others), place, with_what)
        return compute(self, *others)

    return method


def _caller() -> FrameType | None:
    """The frame that uses a value."""
    frame = inspect.currentframe()
    for _ in range(2):
        frame = None if frame is None else frame.f_back
    return frame


def _place(frame: FrameType | None) -> Place | None:
    """Where in the program it is; None inside torch, which compares sizes to check them, and asks no choices."""
    if frame is None or str(frame.f_globals.get("__name__", "")).partition(".")[0] in ("torch", "nas"):
        return None
    found: list[Any] = []
    while frame is not None and len(found) < 2 * _CALLERS:
        found += [id(frame.f_code), frame.f_lasti]
        frame = frame.f_back
    return tuple(found)


def _equip(kind: type, base: type) -> None:
    for names, make in ((_ARITHMETIC, _computes), (_DECIDING, _decides), (_FORGETTING, _decides)):
        for name in (f"__{name}__" for name in names):
            if name in vars(base):
                setattr(kind, name, make(base, name))


for _base, _kind in _KINDS.items():
    _equip(_kind, _base)
