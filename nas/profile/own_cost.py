"""A cost of a user's own: any function of what the modules of an architecture do in a forward pass, added up."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, final, overload

from torch import nn

from nas.calls import explained
from nas.checks import check_number
from nas.errors import NasTypeError, explain
from nas.example_inputs import Example
from nas.profile.costs import Cost
from nas.profile.dry_run import ModuleRun, count_pass
from nas.profile.passes import run_first, subject_of
from nas.profile.space_profile import tabulate
from nas.space import ModelSpace

ModuleCost: TypeAlias = Callable[[ModuleRun], float]
"""What one module itself costs, from 0 on; the costs of its children are theirs."""

_UNIT = 2.0**-30
"""What the tables count: small enough for fractions, and a power of 2, so that whole numbers stay exact."""


@overload
def cost(model: ModelSpace, example_input: Example, of: ModuleCost, *, name: str = "cost") -> Cost: ...
@overload
def cost(model: nn.Module, example_input: Example, of: ModuleCost, *, name: str = "cost") -> float: ...


@explained()
def cost(model: ModelSpace | nn.Module, example_input: Example, of: ModuleCost, *, name: str = "cost") -> Cost | float:
    """What a model costs, or what each architecture of a space costs, by a function of your own.

    The function is asked for each module what it costs itself, and the answers are added up. As with `profile`, copies
    run, on the meta device wherever they can, and of a space few architectures are built. What this makes of a space
    limits a search (`space.where(bits < 1e6)`), is penalised in one-shot search (`nas.oneshot.CostPenalty`), and yields
    the number of a sample; of a model it yields the number itself, a metric for an evaluator to return.

    Args:
        model: a space, or a module, which is not touched.
        example_input: a tensor, a tuple of tensors, or the shape of one float tensor, batch included; or anything that
            `forward` takes, as for `profile`.
        of: what a module costs, given its `ModuleRun`: from 0 on, counted in units of 2^-30. For modules that do the
            same it must say the same.
        name: of the cost, in messages.

    Returns:
        A `Cost` for a space, the number for a module.

    Raises:
        NasTypeError: a model or an example input of another kind, or a cost that is no number.
        NasValueError: a cost below 0 or without end, a forward pass that fails, or a cost that cannot be tabulated (see
            `SpaceProfile`).

    Example:
        >>> from nas import ValueChoice
        >>> def bits(run):
        ...     return run.parameters * (8 if isinstance(run.module, nn.Linear) else 32)
        >>> cost(nn.Linear(4, 8), (1, 4), bits)
        320.0
        >>> space = ModelSpace(lambda: nn.Linear(4, ValueChoice([8, 16, 32], label="width")))
        >>> of_space = cost(space, (1, 4), bits, name="bits")
        >>> of_space({"width": 16}), of_space.bounds().greatest
        (640.0, 1280.0)
        >>> space.sample(0, where=of_space < 400)
        {'width': 8}
    """
    if not callable(of):
        raise NasTypeError(explain("of is a function of what a module does", got=of, mend="lambda run: run.parameters"))
    counted = _Counted(of, name)
    if isinstance(model, ModelSpace):
        return Cost(tabulate(model, example_input, (name,), lambda run: (counted(run),)), name, name=name, scale=_UNIT)
    if not isinstance(model, nn.Module):
        raise NasTypeError(explain("a cost is that of a module or of a ModelSpace", got=model))
    runs, _ = run_first(subject_of(model), example_input, count_pass, task=f"{name} of")
    return sum(map(counted, runs)) * _UNIT


@final
class _Counted:
    """A user's cost in whole units."""

    def __init__(self, of: ModuleCost, name: str) -> None:
        self._of, self._name = of, name

    def __call__(self, run: ModuleRun) -> int:
        where = f"{self._name} of {repr(run.path) if run.path else 'the model itself'}"
        found = check_number("what a module costs", self._of(run), least=0, where=where, mend="return 0 for nothing")
        return round(found / _UNIT)
