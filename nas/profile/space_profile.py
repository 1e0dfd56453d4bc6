"""What all architectures of a space cost, without building each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias, final

from nas.domains import Sample
from nas.errors import NasError, NasValueError, explain
from nas.profile.cost_structure import Structure
from nas.profile.cost_tables import CostTables, Vector
from nas.profile.costs import Cost
from nas.profile.dry_run import Example, Known, ModuleRun, meta_example, run_on_meta
from nas.profile.model_profile import as_text, build_on_meta
from nas.space import ARCHITECTURE, ModelSpace

if TYPE_CHECKING:
    from rich.table import Table


@final
class SpaceProfile:
    """The costs of all samples of a space for one example input, batch included. `print` it for a table of bounds.

    Args:
        space: of models. A constraint that it has does not narrow the bounds.
        example_input: a tensor, a tuple of tensors, or a shape.

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


Count: TypeAlias = Callable[[ModuleRun], Sequence[int]]
"""What one module costs: a number for each metric."""


def tabulate(space: ModelSpace, example_input: Example, metrics: Sequence[str], count: Count) -> CostTables:
    """The tables of some metrics, each the sum over the modules of an architecture.

    Args:
        space: of models.
        example_input: a tensor, a tuple of tensors, or a shape.
        metrics: their names.
        count: what a module costs, in whole numbers from 0 on.

    Raises:
        NasValueError: as `SpaceProfile` does.
    """
    structure, measure = Structure(space.search_space), _Measure(space, example_input, count)
    try:
        return CostTables(structure, measure, metrics)
    except NasError:
        if space.search_space.constraint is None:
            raise
        # Only what the constraint allows can be built: then that must do.
        measure(space.sample(0))
        return CostTables(structure, measure, metrics, whole=True)


def _usual(run: ModuleRun) -> tuple[int, int, int]:
    return run.flops // 2, run.parameters, run.activations


@final
class _Measure:
    """Profiles one sample on the meta device, module by module; leaf modules that were seen are not run again."""

    def __init__(self, space: ModelSpace, example_input: Example, count: Count) -> None:
        self._space, self._inputs, self._count = space, meta_example(example_input), count
        self._known: Known = {}

    def __call__(self, sample: Sample) -> Vector:
        model = build_on_meta(self._space, sample)
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
        found = {run.path: self._count(run) for run in run_on_meta(model, self._inputs, self._known)}
        return {path: costs for path, costs in found.items() if any(costs)}
