"""The graph of a whole network, its modules as boxes: traced, then folded to a depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from nas._compat.torch_internals import Convolution
from nas.checks import check_int
from nas.pictures.graph_picture import Graph, Group
from nas.pictures.network_steps import ModuleCall, Step, network_steps
from nas.profile import Example, Subject
from nas.space import CellModule, ChosenInputs

BOXES = 32
"""How many a drawing has at most where the user names no depth."""

_GROUPS: tuple[tuple[str, Group], ...] = (
    ("conv", "convolution"),
    ("linear", "linear"),
    ("embedding", "linear"),
    ("pool", "pool"),
    ("mean", "pool"),
    ("norm", "norm"),
    ("identity", "identity"),
    ("dropout", "identity"),
    ("add", "join"),
    ("concat", "join"),
    ("stack", "join"),
    ("mul", "join"),
    ("sum", "join"),
    ("relu", "activation"),
    ("gelu", "activation"),
    ("silu", "activation"),
    ("elu", "activation"),
    ("swish", "activation"),
    ("sigmoid", "activation"),
    ("softmax", "activation"),
    ("tanh", "activation"),
)
_NAMES = {"cat": "concat", "iadd": "add", "add_": "add", "imul": "mul", "adaptive_avg_pool2d": "average pool"}


def network_graph(subject: Subject, example_input: Example, *, depth: int | None) -> Graph:
    """Boxes for the modules and functions that a forward pass in evaluation mode runs, and what flows between them.

    Args:
        subject: the model, of which copies run.
        example_input: what its forward takes.
        depth: of calls of modules in modules, each its own box. Where it is None: as deep as `BOXES` allow, cells
            and short rows of layers whole, and equal modules in a row as one box.

    Raises:
        NasValueError: the forward pass fails, or a depth below 1.
    """
    if depth is not None:
        depth = check_int("depth", depth, least=1, or_else="None", where="draw")
    modules, steps = network_steps(subject, example_input)
    if depth is not None:
        return _graph(_folded(modules, steps, depth, whole=False), subject.name)
    found = _rows(_folded(modules, steps, 1, whole=True))
    for deeper in range(2, 1 + max(len(step.calls) for step in steps)):
        finer = _rows(_folded(modules, steps, deeper, whole=True))
        if len(finer) > BOXES:
            break
        found = finer
    return _graph(found, subject.name)


@dataclass(kw_only=True)
class _Part:
    """What becomes a box: one function, or a call of a module."""

    text: str
    group: Group
    kind: str
    """What equal modules have in common; empty for others."""
    shape: str = ""
    sources: dict[int, None] = field(default_factory=dict)
    """Positions of the parts whose tensors it takes."""
    times: int = 1


def _folded(modules: Mapping[str, nn.Module], steps: Sequence[Step], depth: int, *, whole: bool) -> list[_Part]:
    """One part for all steps of one call of a module that deep; `whole`: cells and short rows of layers are one."""
    parts: list[_Part] = []
    numbers: dict[object, int] = {}  # a call, or the position of a step by itself -> its part
    part_of: list[int] = []
    for position, step in enumerate(steps):
        call = _owner(modules, step, depth, whole)
        key: object = position if call is None else call
        if key not in numbers:
            numbers[key] = len(parts)
            text, group = _function(step) if call is None else _module(modules[call[1]], call[1])
            kind = repr(modules[call[1]]) if call is not None and _is_composite(modules[call[1]]) else ""
            parts.append(_Part(text=text, group=group, kind=kind))
        part_of.append(numbers[key])
        part = parts[numbers[key]]
        part.sources |= {part_of[s]: None for s in step.sources if part_of[s] != numbers[key]}
        part.shape = "" if step.name == "output" else "x".join(map(str, step.shape[1:]))
    return parts


def _owner(modules: Mapping[str, nn.Module], step: Step, depth: int, whole: bool) -> ModuleCall | None:
    """The call that a step is shown as, if not as itself. Chosen inputs count as no level where they only pass on."""
    calls: list[ModuleCall] = []
    for call in step.calls:
        module = modules[call[1]]
        if not isinstance(module, ChosenInputs) or call == step.calls[-1]:
            calls.append(call)
        if whole and (isinstance(module, CellModule) or _is_short(module)):
            break
    else:
        last = modules[calls[-1][1]] if calls else None
        if len(calls) < depth and last is not None and _is_composite(last) and not isinstance(last, ChosenInputs):
            return None
    return calls[min(depth, len(calls)) - 1] if calls else None


def _rows(parts: Sequence[_Part]) -> list[_Part]:
    """Equal modules, each of which reads the one before it and at most what that one reads, as one part."""
    rows: list[_Part] = []
    row_of: list[int] = []
    for part in parts:
        last = len(rows) - 1
        sources = {row_of[s]: None for s in part.sources}
        if part.kind and last in sources and part.kind == rows[last].kind:
            others = sources.keys() - {last}
            if part.shape == rows[last].shape and others <= rows[last].sources.keys():
                rows[last].times += 1
                row_of.append(last)
                continue
        row_of.append(len(rows))
        rows.append(replace(part, sources=sources))
    return rows


def _graph(parts: Sequence[_Part], title: str) -> Graph:
    graph = Graph(title=title)
    for part in parts:
        text = f"{part.times} x {part.text}" if part.times > 1 else part.text
        graph.add(f"{text}\n{part.shape}".rstrip(), part.group, *part.sources)
    return graph


def _is_composite(module: nn.Module) -> bool:
    return any(True for _ in module.children())


def _is_short(module: nn.Module) -> bool:
    """A convolution with its norm and its activation, say."""
    return isinstance(module, nn.Sequential) and 0 < len(module) <= 4 and not any(map(_is_composite, module))


def _function(step: Step) -> tuple[str, Group]:
    if step.name in ("input", "output"):
        return step.name, "data"
    text = step.name.strip("_")
    text = _NAMES.get(text, text).replace("_", " ")
    return text, _group(text)


def _module(module: nn.Module, path: str) -> tuple[str, Group]:
    if isinstance(module, CellModule):
        return f"{module.label} cell", "composite"
    if isinstance(module, ChosenInputs):
        return {"sum": "add"}.get(module.reduction, module.reduction), "join"
    if isinstance(module, nn.Sequential) and _is_short(module):
        return _short(module)
    if _is_composite(module):
        named = isinstance(module, nn.Sequential) and path.count(".") < 2
        name = path if named else type(module).__name__.strip("_")
        return f"{name}\n{_inside(module)}".rstrip(), "composite"
    return _leaf(module), _group(_leaf(module))


def _short(row: nn.Sequential) -> tuple[str, Group]:
    """What has weights to be chosen on lines of its own."""
    lines: list[str] = []
    alone = True
    for module in row:
        text = _leaf(module)
        lines += [text] if alone or " " in text else []
        if not (alone or " " in text):
            lines[-1] += f", {text}"
        alone = " " in text
    groups = [_group(_leaf(module)) for module in row]
    return "\n".join(lines), next((group for group in groups if group in ("convolution", "linear")), groups[0])


def _inside(module: nn.Module) -> str:
    """What tells blocks of one kind apart: the kernels above 1x1, and the greatest number of channels."""
    convolutions = [m for m in module.modules() if isinstance(m, Convolution)]
    kernels = dict.fromkeys("x".join(map(str, m.kernel_size)) for m in convolutions if max(m.kernel_size) > 1)
    widths = [m.out_channels for m in convolutions]
    widths += [m.out_features for m in module.modules() if isinstance(m, nn.Linear)]
    return ", ".join([*kernels, *([f"{max(widths)} wide"] if widths else [])])


def _leaf(module: nn.Module) -> str:
    name = type(module).__name__.strip("_")
    if isinstance(module, Convolution):
        kernel = "x".join(map(str, module.kernel_size))
        depthwise = module.groups == module.in_channels > 1
        channels = f"depthwise {module.in_channels}" if depthwise else f"{module.in_channels} to {module.out_channels}"
        stride = f", stride {module.stride[0]}" if max(module.stride) > 1 else ""
        return f"{name} {kernel}, {channels}{stride}"
    if isinstance(module, nn.Linear):
        return f"{name} {module.in_features} to {module.out_features}"
    return name


def _group(text: str) -> Group:
    low = text.lower()
    return next((group for part, group in _GROUPS if part in low), "other")
