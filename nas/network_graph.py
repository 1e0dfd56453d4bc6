"""The graph of a whole network, its modules as boxes: exported by torch, then folded to a depth."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from nas.errors import NasValueError, explain
from nas.graph_picture import Graph, Group

BOXES = 60
"""How many a drawing has at most where the user names no depth."""

_GROUPS: tuple[tuple[str, Group], ...] = (
    ("conv", "convolution"),
    ("linear", "linear"),
    ("pool", "pool"),
    ("norm", "norm"),
    ("identity", "identity"),
    ("dropout", "identity"),
    ("add", "join"),
    ("cat", "join"),
    ("mul", "join"),
    ("sum", "join"),
    *((name, "activation") for name in ("relu", "sigmoid", "tanh", "swish", "silu", "elu", "softmax")),  # type: ignore[misc]  # literals
)
_HIDDEN = {"getitem", "_assert_tensor_metadata", "sym_size", "contiguous", "detach", "alias", "_to_copy"}


def network_graph(model: nn.Module, example_input: Any, depth: int | None) -> Graph:
    """Boxes for the modules and functions that a forward pass in evaluation mode runs, and what flows between them.

    Raises:
        NasValueError: torch cannot export the model with this input, or a depth below 1.
    """
    if depth is not None and (isinstance(depth, bool) or not isinstance(depth, int) or depth < 1):
        raise NasValueError(explain("depth must be an int above 0", got=depth, where="draw"))
    inputs = example_input if isinstance(example_input, tuple) else (example_input,)
    try:
        exported = torch.export.export(copy.deepcopy(model).eval(), inputs, strict=False)
    except Exception as error:
        raise NasValueError(explain(f"torch could not export {type(model).__name__}: {error}", where="draw")) from error
    users = set(exported.graph_signature.user_inputs)
    nodes = [n for n in exported.graph.nodes if n.op in ("call_function", "output") or n.name in users]
    if depth is not None:
        return _fold(model, nodes, depth)
    graph = _fold(model, nodes, 1)
    for deeper in range(2, 12):
        finer = _fold(model, nodes, deeper)
        if len(finer.boxes) > BOXES:
            break
        graph = finer
    return graph


def _fold(model: nn.Module, nodes: Sequence[fx.Node], depth: int) -> Graph:
    """One box for all nodes of one call of a module that deep."""
    owner: dict[fx.Node, str] = {}
    members: dict[str, list[fx.Node]] = {}
    for node in nodes:
        name = node.target.__name__.split(".")[0] if callable(node.target) else ""
        sources = [s for s in node.all_input_nodes if s in owner]
        if name in _HIDDEN and sources:
            owner[node] = owner[sources[0]]
            continue
        owner[node] = _owner(model, node, depth)
        members.setdefault(owner[node], []).append(node)
    graph, numbers = Graph(title=type(model).__name__), dict[str, int]()
    for key, inside in members.items():
        before = dict.fromkeys(owner[s] for n in inside for s in n.all_input_nodes if s in owner)
        numbers[key] = graph.add(*_box(model, key, inside), *(numbers[b] for b in before if b != key and b in numbers))
    return graph


def _calls(node: fx.Node) -> list[tuple[str, str]]:
    """The calls that a node lies in, outermost first: (unique key, path of the module)."""
    stack = node.meta.get("nn_module_stack") or {}
    return [(str(key), path) for key, (path, _) in stack.items() if path]


def _owner(model: nn.Module, node: fx.Node, depth: int) -> str:
    calls = _calls(node)
    if not calls:
        return f"node:{node.name}"
    key, path = calls[min(depth, len(calls)) - 1]
    leaf = not any(True for _ in _module(model, path).children())
    return f"call:{key}:{path}" if len(calls) >= depth or leaf else f"node:{node.name}"


def _module(model: nn.Module, path: str) -> nn.Module:
    return model.get_submodule(path.split("@")[0])


def _box(model: nn.Module, key: str, inside: list[fx.Node]) -> tuple[str, Group]:
    last = inside[-1]
    if last.op == "output":
        return "output", "data"
    shape = _shape(last)
    if last.op == "placeholder":
        return f"input\n{shape}", "data"
    if key.startswith("call:"):
        path = _calls(inside[0])
        named = next(p for k, p in path if key == f"call:{k}:{p}")
        text = _describe(_module(model, named), named)
    else:
        text = str(getattr(last.target, "__name__", last.target)).split(".")[0].strip("_")
        text = {"cat": "concat"}.get(text, text)
    return f"{text}\n{shape}".rstrip(), _group(text)


def _shape(node: fx.Node) -> str:
    value = node.meta.get("val")
    return "x".join(str(n) for n in value.shape[1:]) if isinstance(value, torch.Tensor) else ""


def _describe(module: nn.Module, path: str) -> str:
    name = type(module).__name__
    if any(True for _ in module.children()):
        return f"{path}: {name}"
    if isinstance(module, nn.modules.conv._ConvNd):
        kernel = "x".join(map(str, module.kernel_size))
        stride = f", stride {module.stride[0]}" if max(module.stride) > 1 else ""
        depthwise = ", depthwise" if module.groups == module.in_channels > 1 else ""
        return f"{name} {kernel}, {module.in_channels} to {module.out_channels}{stride}{depthwise}"
    if isinstance(module, nn.Linear):
        return f"{name} {module.in_features} to {module.out_features}"
    return name


def _group(text: str) -> Group:
    low = text.lower()
    return next((group for part, group in _GROUPS if part in low), "other")
