"""What all architectures of a space cost, without building each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias, final

from torch import nn

from nas.brief import rich_html
from nas.calls import explained
from nas.domains import Sample
from nas.errors import NasValueError, explain
from nas.example_inputs import Example
from nas.profile.cost_tables import CostTables, Vector, explored
from nas.profile.costs import Cost
from nas.profile.dry_run import Known, ModuleRun, count_pass
from nas.profile.model_profile import as_text
from nas.profile.passes import ForwardPass, Ground, run_first, sample_subject
from nas.space import ARCHITECTURE, ModelSpace

if TYPE_CHECKING:
    from rich.table import Table


@explained()
@final
class SpaceProfile:
    """The costs of all samples of a space for one example input, batch included. `print` it for a table of bounds.

    Args:
        space: of models. What its constraint forbids is never built; the bounds are then not exact.
        example_input: see `profile`.

    Raises:
        NasValueError: a forward pass fails, a cost depends on a choice from an interval of reals, or the program asks
            choices only through the value of others.
    """

    def __init__(self, space: ModelSpace, example_input: Example) -> None:
        self.name = space.name
        metrics = ("multiply_adds", "parameters", "activations")
        self.tables = tabulate(space, example_input, metrics, _usual)
        self.flops = Cost(self.tables, "multiply_adds", name="flops", scale=2)
        self.multiply_adds = Cost(self.tables, "multiply_adds", name="multiply_adds")
        self.parameters = Cost(self.tables, "parameters", name="parameters")
        self.activations = Cost(self.tables, "activations", name="activations")

    def __rich__(self) -> Table:
        from rich.table import Table

        table = Table(title=self.name)
        for column in ("cost", "least", "greatest", "bounds", "tables"):
            table.add_column(column, justify="left" if column == "cost" else "right")
        for cost in (self.parameters, self.multiply_adds, self.flops, self.activations):
            bounds = cost.bounds()
            exact = "exact" if bounds.exact else "outer"
            table.add_row(
                cost.name, f"{bounds.least:,.0f}", f"{bounds.greatest:,.0f}", exact, str(len(cost.interactions))
            )
        return table

    def __str__(self) -> str:
        return as_text(self.__rich__())

    def __repr__(self) -> str:
        """In one line."""
        names = [cost.name for cost in (self.parameters, self.multiply_adds, self.flops, self.activations)]
        return f"SpaceProfile({self.name}: {', '.join(names)})"

    def _repr_html_(self) -> str:
        return rich_html(self.__rich__())


Count: TypeAlias = Callable[[ModuleRun], Sequence[int]]
"""What one module costs: a number for each metric."""


def tabulate(space: ModelSpace, example_input: Example, metrics: Sequence[str], count: Count) -> CostTables:
    """The tables of some metrics, each the sum over the modules of an architecture.

    Args:
        space: of models.
        example_input: see `profile`.
        metrics: their names.
        count: what a module costs, in whole numbers from 0 on.

    Raises:
        NasValueError: as `SpaceProfile` does.
    """
    return explored(space.search_space, _Measure(space, example_input, count), metrics)


def _usual(run: ModuleRun) -> tuple[int, int, int]:
    return run.flops // 2, run.parameters, run.activations


@final
class _Measure:
    """Profiles one sample, module by module; leaf modules that were seen are not run again."""

    def __init__(self, space: ModelSpace, example_input: Example, count: Count) -> None:
        self._space, self._example, self._count = space, example_input, count
        self._known: Known = {}
        self._ground: Ground = "meta"

    def __call__(self, sample: Sample) -> Vector:
        def use(run: ForwardPass) -> list[ModuleRun]:
            self._check(run.model, sample)
            return count_pass(run, self._known)

        subject = sample_subject(self._space, sample)
        # Where one sample needs numbers, the next one does too.
        runs, self._ground = run_first(subject, self._example, use, task="profile of", start=self._ground)
        found = {run.path: self._count(run) for run in runs}
        return {path: costs for path, costs in found.items() if any(costs)}

    def _check(self, model: nn.Module, sample: Sample) -> None:
        asked = vars(model).get(ARCHITECTURE, {}).get("sample", {})
        extra = sorted(asked.keys() - sample.keys())
        if extra:
            raise NasValueError(
                explain(
                    f"the choices {', '.join(map(repr, extra))} are asked only through the value of another, so they "
                    "are not in the tree of the space and costs cannot be tabulated",
                    where=self._space.name,
                    mend="use Repeat and LayerChoice instead of plain loops and conditions over a chosen value, or "
                    "profile one sample at a time",
                )
            )
