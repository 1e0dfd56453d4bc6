"""What one model costs, module by module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from nas.brief import rich_html
from nas.example_inputs import Example
from nas.plain_text import printable
from nas.profile.dry_run import ModuleRun, Shape, count_pass
from nas.profile.memory import PeakMemory, meter_of, training_peak
from nas.profile.passes import ForwardPass, Subject, run_first
from nas.profile.recurrent import Recurrences

if TYPE_CHECKING:
    from rich.table import Table


_COSTS = ("parameters", "multiply_adds", "activations")


@final
@dataclass(frozen=True, kw_only=True)
class ModuleProfile:
    """What one module itself costs; the costs of its children are theirs."""

    path: str
    """As in `named_modules`."""
    kind: str
    """The name of its class."""
    parameters: int
    """Its own; a shared one is counted at the first module that has it."""
    multiply_adds: int
    """Of the operations that it calls itself."""
    activations: int
    """Elements of its outputs, when it called no other module."""
    outputs: tuple[Shape, ...]
    """The shapes of its outputs, call after call; empty for a module that was not called."""

    @property
    def flops(self) -> int:
        """2 x `multiply_adds`."""
        return 2 * self.multiply_adds


@final
@dataclass(frozen=True, kw_only=True)
class ModelProfile:
    """What a model costs for one example input, batch included. `print` it for a table.

    Multiply-adds and flops are those of `torch.utils.flop_counter`: matrix products, convolutions and attention, one
    multiply-add for each product, and 2 flops for each multiply-add. Biases, norms, activation functions, pooling and
    other elementwise work count nothing, as in the figures of most papers (which often call multiply-adds "FLOPs").
    """

    name: str
    """The class of the model."""
    parameters: int
    """Elements of all parameters, shared ones once, trainable or not."""
    multiply_adds: int
    """Products that are summed up, in matrix products, convolutions and attention."""
    activations: int
    """Elements of all outputs of leaf modules: of those that called no other module."""
    peak_memory: PeakMemory
    """Bytes for inference and for training."""
    modules: tuple[ModuleProfile, ...]
    """One for each module, in the order of `named_modules`; their costs sum to the model's."""

    @property
    def flops(self) -> int:
        """2 x `multiply_adds`, as `torch.utils.flop_counter` counts."""
        return 2 * self.multiply_adds

    def __rich__(self) -> Table:
        from rich.table import Table

        table = Table(title=self.name, caption=self._memory(), show_footer=True)
        table.add_column("module", "total")
        table.add_column("kind")
        table.add_column("output")
        for name in _COSTS:
            table.add_column(name.replace("_", "-"), f"{getattr(self, name):,}", justify="right")
        for row in self.modules:
            if row.parameters or row.multiply_adds or row.activations:
                shapes = " ".join(str(shape).replace(" ", "") for shape in row.outputs[:2])
                table.add_row(
                    row.path or "(itself)",
                    row.kind,
                    shapes + (" ..." if len(row.outputs) > 2 else ""),
                    f"{row.parameters:,}",
                    f"{row.multiply_adds:,}",
                    f"{row.activations:,}",
                )
        return table

    def __str__(self) -> str:
        return as_text(self.__rich__())

    def __repr__(self) -> str:
        """In one line."""
        costs = (f"{getattr(self, name):,} {name.replace('_', '-')}" for name in _COSTS)
        return f"ModelProfile({self.name}: {', '.join(costs)})"

    def _repr_html_(self) -> str:
        return rich_html(self.__rich__())

    def _memory(self) -> str:
        peak = self.peak_memory
        return f"peak memory: {peak.inference / 2**20:,.1f} MiB inference, {peak.training / 2**20:,.1f} MiB training"


def as_text(table: Table) -> str:
    """A table as plain text."""
    from rich.console import Console

    console = Console(width=140, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return printable(capture.get(), lines=True)


def profile_subject(subject: Subject, example_input: Example) -> ModelProfile:
    """The profile of a module, which is not touched, or of a sample."""
    return run_first(subject, example_input, lambda run: _profile(subject.name, run), task="profile of")[0]


def _profile(name: str, run: ForwardPass) -> ModelProfile:
    inference = meter_of(run)
    runs = count_pass(run, meanwhile=inference)
    rows = tuple(map(_row, runs))
    return ModelProfile(
        name=name,
        parameters=sum(row.parameters for row in rows),
        multiply_adds=sum(row.multiply_adds for row in rows),
        activations=sum(row.activations for row in rows),
        peak_memory=PeakMemory(
            inference=inference.peak, training=training_peak(run, Recurrences(real=run.ground == "real"))
        ),
        modules=rows,
    )


def _row(run: ModuleRun) -> ModuleProfile:
    return ModuleProfile(
        path=run.path,
        kind=type(run.module).__name__,
        parameters=run.parameters,
        multiply_adds=run.flops // 2,
        activations=run.activations,
        outputs=tuple(shape for shapes in run.outputs for shape in shapes),
    )
