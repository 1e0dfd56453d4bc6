"""What a user writes where more than one thing could stand: ValueChoice, LayerChoice, InputChoice, Repeat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, TypeAlias, TypeVar, final, get_args, overload

import torch
from torch import Tensor, nn

from nas.calls import explained
from nas.checks import check_bool, check_int, check_word, plain_int
from nas.copying import copy_module, own
from nas.domains import Answer, Categorical, Domain, Integer, Real, Subset
from nas.errors import NasTypeError, NasValueError, explain
from nas.space.factories import make_module
from nas.space.questions import Question, ask, chosen_items, current_handler, inside, scope_name, within

T = TypeVar("T")
Candidate: TypeAlias = nn.Module | Callable[[], nn.Module]
Reduction: TypeAlias = Literal["sum", "mean", "concat", "none"]


class ChosenInt(int):
    """The int that discovery hands out for a ValueChoice: it remembers its question, so that `Repeat` can use it.

    What is computed from one may be of this kind too, but then has no question.
    """

    question: Question | None = None


@overload
def ValueChoice(candidates: Integer, *, label: str | None = None, default: int | None = None) -> int: ...
@overload
def ValueChoice(candidates: Real, *, label: str | None = None, default: float | None = None) -> float: ...
@overload
def ValueChoice(candidates: Sequence[T], *, label: str | None = None, default: T | None = None) -> T: ...
@overload
def ValueChoice(candidates: Categorical[T], *, label: str | None = None, default: T | None = None) -> T: ...
@overload
def ValueChoice(candidates: Domain, *, label: str | None = None, default: Answer = None) -> Answer: ...


@explained(too_many="put the candidates into one list, as in ValueChoice([16, 32])")
def ValueChoice(candidates: object, *, label: str | None = None, default: object = None) -> object:  # noqa: N802
    """One of several values: a plain int, float, str, ... from here on.

    Args:
        candidates: a sequence of None, bool, int, float, str or tuples of these, all different; or a domain:
            `Integer(low, high)`, `Real(low, high)`, or one of your own.
        label: the name of the choice; the same label anywhere in the space is the same choice. In branches that exclude
            each other it may have other candidates.
        default: the answer of the base model; the first candidate where omitted.

    Raises:
        NasValueError: no candidates, duplicates, a candidate that JSON cannot hold, a default outside the domain.

    Example:
        >>> from nas import ModelSpace
        >>> space = ModelSpace(lambda: nn.Linear(8, ValueChoice([16, 32, 64], label="width")))
        >>> space.build({"width": 32})
        Linear(in_features=8, out_features=32, bias=True)
    """
    try:
        domain = candidates if isinstance(candidates, Domain) else Categorical(candidates)  # type: ignore[arg-type]  # Categorical checks it
    except (NasValueError, NasTypeError) as error:
        raise type(error)(f"{_name('ValueChoice', label)}: {error}") from error
    handler, question = ask("value", domain, label=label, default=default)
    return handler.value(question)


@explained(too_many="put the candidates into one list, as in LayerChoice([nn.ReLU, nn.GELU])")
def LayerChoice(  # noqa: N802
    candidates: Sequence[Candidate] | Mapping[str, Candidate],
    *,
    label: str | None = None,
    default: int | str | None = None,
) -> nn.Module:
    """One of several layers.

    Args:
        candidates: a dict (the answers are its keys) or a list of modules, module classes or functions without
            arguments. Prefer the latter two: only the chosen one is built, and choices asked inside it belong to it
            alone. In a list the answer for a class or a named function is its name, and for all else, a name that was
            there before among it, the position; samples may say the position of any.
        label: the name of the choice.
        default: the answer of the base model; the first candidate where omitted.

    Raises:
        NasValueError: no candidates.
        NasTypeError: a candidate that is no module and builds none.

    Example:
        >>> from nas import ModelSpace
        >>> space = ModelSpace(lambda: LayerChoice({"relu": nn.ReLU, "gelu": nn.GELU}, label="activation"))
        >>> space.build({"activation": "gelu"})
        GELU(approximate='none')
        >>> list(ModelSpace(lambda: LayerChoice([nn.ReLU, nn.GELU, lambda: nn.PReLU(init=0.1)])).grid())
        [{'layer': 'ReLU'}, {'layer': 'GELU'}, {'layer': 2}]
    """
    where = _name("LayerChoice", label)
    if isinstance(candidates, Mapping):
        named: dict[Answer, Candidate] = dict(candidates)
    elif isinstance(candidates, list | tuple | nn.ModuleList):
        named = dict(zip(_answers(candidates), candidates, strict=True))
    else:
        mend = "write [nn.ReLU, nn.GELU], or names with them in a dict"
        raise NasTypeError(
            explain("candidates must be a list or a dict of modules", got=candidates, where=where, mend=mend)
        )
    if not named:
        rule = "a choice needs at least one candidate"
        raise NasValueError(explain(rule, got=candidates, where=where, mend="name the layers: [nn.ReLU, nn.GELU]"))
    if not all(map(callable, named.values())):
        odd = {key: item for key, item in named.items() if not callable(item)}
        raise NasTypeError(
            explain(
                "each candidate must be a module, a module class or a function",
                got=odd,
                where=where,
                mend="ValueChoice for numbers and names; for layers their classes, or lambda: nn.Conv2d(...)",
            )
        )
    try:
        domain = Categorical(list(named), by_position=not isinstance(candidates, Mapping))
    except (NasValueError, NasTypeError) as error:
        raise type(error)(f"{where}: {error}") from error
    handler, question = ask("layer", domain, label=label, default=default)
    return handler.layer(question, lambda key: _build_candidate(question, key, named[key]))


def _answers(candidates: Iterable[Candidate]) -> list[Answer]:
    """The names of classes and functions; for what has none, or one that was there before, the position."""
    found: list[Answer] = []
    for position, candidate in enumerate(candidates):
        name = "" if isinstance(candidate, nn.Module) else getattr(candidate, "__name__", "")
        found.append(name if name.isidentifier() and name not in found else position)
    return found


@explained()
def InputChoice(  # noqa: N802
    n_candidates: int,
    n_chosen: int | None = 1,
    *,
    reduction: Reduction = "sum",
    replace: bool = True,
    each: Callable[[int], nn.Module] | None = None,
    label: str | None = None,
) -> nn.Module:
    """Some of several tensors, reduced to one: which connections an architecture has.

    The module it returns is called with a list of `n_candidates` tensors; None stands for no connection and is left
    out (`[x, None]` is the skip-connection pattern). Where nothing is left, it returns None.

    Args:
        n_candidates: how many tensors it is called with.
        n_chosen: how many of them are taken; None for any subset, the empty one included.
        reduction: "sum", "mean" (of what is there), "concat" (along dimension 1), or "none" (the list itself).
        replace: whether one tensor may be taken several times: by default it may, as in cells whose two inputs can be
            the same, so `InputChoice(3, 2)` has 6 answers, [0, 0] among them; with False it has 3. Order counts only
            for "concat" and "none".
        each: builds, given the position of a tensor, what that tensor goes through when it is taken. It is called for
            the chosen ones alone, so choices inside it are conditional: an edge of a cell with its operation.
        label: the name of the choice. The answer is an int for `n_chosen=1`, else a list of ints.

    Raises:
        NasValueError: more to choose than there are (without `replace`), or an unknown reduction.

    Example:
        >>> from nas import ModelSpace
        >>> space = ModelSpace(lambda: InputChoice(3, 2, label="inputs"))
        >>> space.size
        6
        >>> space.build({"inputs": [0, 2]})([torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([4.0])])
        tensor([5.])
        >>> edges = ModelSpace(lambda: InputChoice(3, 2, replace=False, label="inputs",
        ...     each=lambda i: LayerChoice([nn.ReLU, nn.Tanh], label=f"edge {i}")))
        >>> edges.size, edges.sample(0)
        (12, {'inputs': [1, 2], 'edge 1': 'ReLU', 'edge 2': 'Tanh'})
    """
    where = _name("InputChoice", label)
    if each is not None and not callable(each):
        raise _kind(
            "each must be a function from a position to a module", each, where, "each=lambda i: nn.Linear(8, 8)"
        )
    check_word("reduction", reduction, get_args(Reduction), where=where)
    replace = check_bool("replace", replace, where=where)
    n_candidates = check_int("n_candidates", n_candidates, least=1, where=where)
    if n_chosen is not None:
        n_chosen = check_int("n_chosen", n_chosen, least=1, or_else="None", where=where)
    if n_chosen is not None and n_chosen > n_candidates and not replace:
        raise NasValueError(
            explain(
                f"{n_chosen} of {n_candidates} inputs cannot be chosen without repeating one",
                got=(n_candidates, n_chosen),
                where=where,
                mend="choose fewer, or allow replace=True",
            )
        )
    domain: Domain = (
        Categorical(range(n_candidates))
        if n_chosen == 1
        else Subset(n_candidates, n_chosen, replace=replace, ordered=reduction in ("concat", "none"))
    )
    handler, question = ask("input", domain, label=label)

    def select(answer: Answer, passed: Mapping[int, nn.Module]) -> nn.Module:
        return ChosenInputs(n_candidates, chosen_items(answer), reduction, passed)

    def build(index: int) -> nn.Module:
        assert each is not None
        with inside(question, index, index):
            return make_module(each, lambda: f"what input {index} of {question.describe()} goes through", index)

    return handler.inputs(question, select, None if each is None else build)


@explained()
@final
class ChosenInputs(nn.Module):
    """Picks the chosen tensors out of a list and reduces them: what an InputChoice leaves in a built model."""

    def __init__(
        self,
        n_candidates: int,
        chosen: tuple[int, ...],
        reduction: Reduction,
        passed: Mapping[int, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.n_candidates, self.chosen, self.reduction = n_candidates, chosen, reduction
        if passed:
            self.each = nn.ModuleDict({str(i): module for i, module in passed.items()})
        self._passes = bool(passed)

    def forward(self, inputs: Sequence[Tensor | None]) -> Tensor | list[Tensor | None] | None:
        """The reduction of the chosen inputs, each (batch, ...) of one shape (concat: of one shape but for dim 1).

        Returns:
            A tensor; None where only None was chosen; for the reduction "none", the list of the chosen.
        """
        if len(inputs) != self.n_candidates:
            raise NasValueError(
                explain(
                    f"this InputChoice was made for {self.n_candidates} inputs, as a list", got=f"{len(inputs)} of them"
                )
            )
        chosen = [self._pass(i, inputs[i]) for i in self.chosen]
        if self.reduction == "none":
            return chosen
        present = [tensor for tensor in chosen if tensor is not None]
        if not present:
            return None
        if self.reduction == "concat":
            return torch.cat(present, dim=1)
        total = present[0]
        for tensor in present[1:]:
            total = total + tensor
        return total / len(present) if self.reduction == "mean" else total

    def _pass(self, index: int, tensor: Tensor | None) -> Tensor | None:
        if not self._passes or tensor is None:
            return tensor
        passed: Tensor = self.each[str(index)](tensor)
        return passed

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"{list(self.chosen)} of {self.n_candidates}, {self.reduction}"


@explained()
def Repeat(  # noqa: N802
    block: nn.Module | Sequence[Candidate] | Callable[[int], nn.Module],
    depth: int | tuple[int, int],
    *,
    label: str | None = None,
) -> nn.Sequential:
    """A block several times in a row; how often may be a choice.

    Args:
        block: a module (copied for each time, choices inside it shared), a list of modules, module classes or
            functions without arguments (the first ones are used), or a function that takes the index and builds one.
        depth: an int, an inclusive `(low, high)` whose low may be 0, or a ValueChoice over ints.
        label: the name of the choice of depth; omitted labels inside begin with it and the index.

    Raises:
        NasValueError: low above high, a depth below 0, or a list shorter than the greatest depth.
        NasTypeError: a block or a depth of another kind.

    Example:
        >>> from nas import ModelSpace
        >>> space = ModelSpace(lambda: Repeat(lambda i: nn.Linear(4, 4), (1, 3), label="depth"))
        >>> len(space.build({"depth": 2}))
        2
    """
    where = _name("Repeat", label)
    make = _block_factory(block, where)
    domain = _depth_domain(depth, where)
    possible: Iterable[object] = [depth] if domain is None else domain.values()
    depths = [check_int("depth", found, least=0, where=where) for found in possible]
    if isinstance(block, Sequence) and max(depths) > len(block):
        raise NasValueError(
            explain(
                f"the list of blocks must reach the greatest depth, {max(depths)}",
                got=f"{len(block)} of them",
                where=where,
                mend=f"a depth up to {len(block)}, or lambda i: ..., which builds any number",
            )
        )
    asked = _asked(depth)
    if domain is None or asked is not None:
        # A build sees only the value of a ValueChoice, so its label must not take part in the scope's name.
        scope, former = scope_name("repeat", label)
        if asked is None:
            return nn.Sequential(*(_scoped((scope, i), (former, i), make) for i in range(depths[0])))
        handler, question = current_handler(), asked
    else:
        handler, question = ask("repeat", domain, label=label)
        scope, former = question.label, question.former or question.label
    built = handler.repeat(question, lambda index: _scoped((scope, index), (former, index), make))
    assert isinstance(built, nn.Sequential)
    return built


def _asked(depth: object) -> Question | None:
    """The ValueChoice whose very answer a depth is."""
    return depth.question if isinstance(depth, ChosenInt) else None


def _depth_domain(depth: int | tuple[int, int], where: str) -> Domain | None:
    """The depths to choose from; None where the depth is fixed."""
    asked = _asked(depth)
    if asked is not None:
        return asked.domain
    if plain_int(depth) is not None:
        return None
    if isinstance(depth, tuple | list) and len(depth) == 2:
        try:
            return Integer(*depth)
        except (NasValueError, NasTypeError) as error:
            raise type(error)(f"{where}: {error}") from error
    raise NasTypeError(
        explain(
            "depth must be an int, an inclusive (low, high) or a ValueChoice over ints",
            got=depth,
            where=where,
            mend="(1, 3) for 1 to 3 of them, or ValueChoice([1, 2, 4])",
        )
    )


def _scoped(scope: tuple[str, int], former: tuple[str, int], make: Callable[[int], nn.Module]) -> nn.Module:
    with within(scope, former):
        return make(scope[1])


def _kind(rule: str, got: object, where: str, mend: str) -> NasTypeError:
    return NasTypeError(explain(rule, got=got, where=where, mend=mend))


def _name(kind: str, label: str | None) -> str:
    return kind if label is None else f"{kind} {label!r}"


def _build_candidate(question: Question, key: Answer, candidate: Candidate) -> nn.Module:
    """Builds one candidate inside its label scope, and says whose it is when that fails."""
    if isinstance(candidate, nn.Module):
        return own(candidate)
    with inside(question, key, question.domain.index(key)):
        return make_module(candidate, lambda: f"candidate {key!r} of {question.describe()}")


def _block_factory(
    block: nn.Module | Sequence[Candidate] | Callable[[int], nn.Module], where: str
) -> Callable[[int], nn.Module]:
    if isinstance(block, nn.Module):
        return lambda index: copy_module(block)
    if isinstance(block, Sequence):
        if not all(isinstance(item, nn.Module) or callable(item) for item in block):
            rule, mend = "each block must be a module, a class or a function", "[nn.ReLU, lambda: nn.Linear(4, 4)]"
            raise NasTypeError(explain(rule, got=block, where=where, mend=mend))
        items = list(block)

        def pick(index: int) -> nn.Module:
            item = items[index]
            return own(item) if isinstance(item, nn.Module) else make_module(item, lambda: f"block {index} of {where}")

        return pick
    if callable(block):
        return lambda index: make_module(block, lambda: f"block {index} of {where}", index)
    raise _kind("block must be a module, a list of modules or a function", block, where, "lambda i: nn.Linear(8, 8)")
