"""How channels lie in what a layer reads or makes: found by following tensors through one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nas._compat.torch_internals import tree_leaves
from nas.example_inputs import Inputs
from nas.oneshot.paths.alignment import Found, Segment, plain
from nas.oneshot.paths.slicing import Shape
from nas.oneshot.paths.tensor_calls import TensorCall, reshaped

TensorDim: TypeAlias = tuple[int, int]
"""The id of a parameter or buffer, and a dimension of it."""


@final
class LayoutTrace(TorchFunctionMode):
    """Follows what was concatenated, flattened or split, through operations that leave channels where they are.

    Attributes:
        found: for each dimension of parameters and buffers that reads or makes channels, how these lie.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.found: dict[TensorDim, Found] = {}
        self._owned = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
        self._tags: dict[int, dict[int, Found]] = {}
        self._made: dict[int, str] = {}
        self._rows: dict[int, tuple[int, tuple[TensorDim, ...]]] = {}
        self._alive: list[Any] = []

    def left(self, path: str, output: Any) -> Any:
        """A module has returned: its tensors are called by its path, as tensors of their own."""
        if not isinstance(output, Tensor):
            return output
        fresh = output.view(output.shape)
        self._follow(output, fresh)
        self._made[id(fresh)] = path
        return fresh

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if not results:
            return out
        self._alive += results
        name = str(getattr(func, "__name__", "")).strip("_")
        call = TensorCall(
            name, args, kwargs, [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        )
        handle = _HANDLERS.get(name, LayoutTrace._lost)
        handle(self, call, results)
        return out

    # What is known of tensors.

    def layout(self, tensor: Tensor, dim: int) -> Found:
        """Of a dimension of an activation."""
        return self._tags.get(id(tensor), {}).get(dim) or plain(tensor.shape[dim])

    def reads(self, parameter: Any, dim: int, layout: Found) -> None:
        """A dimension of a parameter meets channels."""
        if id(parameter) not in self._owned or dim < 0:
            return
        known = self.found.setdefault((id(parameter), dim), layout)
        if known != layout:
            self.found[id(parameter), dim] = known if isinstance(known, str) else "it is used in two ways"

    def _follow(self, before: Tensor, after: Tensor, dims: Mapping[int, int] | None = None) -> None:
        """`after` has the channels of `before`; `dims`: where each dimension has gone."""
        dims = {dim: dim for dim in range(before.dim())} if dims is None else dims
        tag = {dims[dim]: found for dim, found in self._tags.get(id(before), {}).items() if dim in dims}
        if tag:
            self._tags.setdefault(id(after), {}).update(tag)
        if id(before) in self._made:
            self._made[id(after)] = self._made[id(before)]
        if id(before) in self._rows:
            dim, places = self._rows[id(before)]
            if dim in dims:
                self._rows[id(after)] = dims[dim], places

    def _lost(self, call: TensorCall, results: Sequence[Tensor]) -> None:
        """An operation that is not known to leave channels where they are."""
        reason = f"`{call.name}` is not known to keep channels in their places"
        lengths = set()
        for tensor in call.tensors:
            if call.name in _REARRANGING and id(tensor) in self._rows:
                self._split(tensor, self._rows[id(tensor)][0], reason)
            for dim in self._tags.get(id(tensor), {}):
                if call.name not in _READING_THE_LAST or dim == tensor.dim() - 1:
                    lengths.add(tensor.shape[dim])
        for result in results:
            tag: dict[int, Found] = {dim: reason for dim in range(result.dim()) if result.shape[dim] in lengths}
            if tag:
                self._tags[id(result)] = tag
        for tensor in call.tensors:
            for dim in range(tensor.dim()):
                if tensor.shape[dim] in lengths:
                    self.reads(tensor, dim, reason)

    def _split(self, tensor: Tensor, dim: int, grid: Shape | str) -> None:
        """The channels that layers made are taken apart: as a grid, or in some other way."""
        made, places = self._rows.get(id(tensor), (-1, ()))
        if made == dim:
            for parameter, row in places:
                found: Found = grid if isinstance(grid, str) else (Segment("", grid),)
                known = self.found.get((parameter, row))
                plain = known is None or (not isinstance(known, str) and len(known) == 1 and len(known[0].shape) == 1)
                self.found[parameter, row] = found if plain or known == found else "it is taken apart in two ways"

    # What operations do.

    def joins(self, call: TensorCall, results: Sequence[Tensor]) -> None:
        """A concatenation."""
        pieces = [piece for piece in call.get(0, "tensors") if piece.shape != (0,)]  # which torch skips
        dim = (1 if call.name == "hstack" else int(call.get(1, "dim", 0))) % results[0].dim()
        segments: list[Segment] = []
        for number, piece in enumerate(pieces):
            layout, length = self.layout(piece, dim), piece.shape[dim]
            source = self._made.get(id(piece), f"#{number}")
            if not isinstance(layout, str) and len(layout) == 1 and len(layout[0].shape) > 1:
                segments.append(Segment(source, layout[0].shape))
            else:
                segments.append(Segment(source, (length,), None if layout == plain(length) else layout))
        counts: dict[str, int] = {}
        for i, segment in enumerate(segments):
            counts[segment.source] = again = counts.get(segment.source, 0) + 1
            if again > 1:
                segments[i] = segment._replace(source=f"{segment.source} ({again})")
        tag: dict[int, Found] = {dim: tuple(segments)}
        for other in {d for piece in pieces for d in self._tags.get(id(piece), {})} - {dim}:
            layouts = {self.layout(piece, other) for piece in pieces}
            tag[other] = layouts.pop() if len(layouts) == 1 else f"`{call.name}` joins channels that lie differently"
        self._tags[id(results[0])] = tag

    def maps(self, call: TensorCall, results: Sequence[Tensor]) -> None:
        """A layer that makes new channels of those that it reads."""
        inputs, weight = call.get(0, "input"), call.get(1, "weight")
        linear, transposed = call.name == "linear", call.name.startswith("conv_transpose")
        dim = inputs.dim() - 1 if linear else inputs.dim() - weight.dim() + 1
        groups = 1 if linear else int(call.get(7 if transposed and len(call.args) > 7 else 6, "groups", 1))
        layout, rows = self.layout(inputs, dim), (1 if transposed else 0)
        bias = call.get(2, "bias", None)
        if groups == 1:
            self.reads(weight, 0 if transposed else 1, layout)
        elif groups == inputs.shape[dim] == results[0].shape[dim]:  # what comes out lies as what goes in
            self.reads(weight, 0, layout)
            self.reads(bias, 0, layout)
            self._follow(inputs, results[0])
            self._through(results[0], weight, bias)
            return
        elif layout != plain(inputs.shape[dim]):
            self.reads(weight, 0, "it has groups, and reads what was concatenated or flattened")
        places = [(id(t), d) for t, d in ((weight, rows), (bias, 0)) if id(t) in self._owned]
        self._rows[id(results[0])] = dim if not linear else results[0].dim() - 1, tuple(places)

    def _through(self, result: Tensor, *parameters: Any) -> None:
        """The channels have gone through parameters that lie as they do."""
        if id(result) in self._rows:
            dim, places = self._rows[id(result)]
            more = tuple((id(p), p.dim() - 1 if p.dim() == 1 else 0) for p in parameters if id(p) in self._owned)
            self._rows[id(result)] = dim, places + more

    def norms(self, call: TensorCall, results: Sequence[Tensor]) -> None:
        """A layer with parameters for each channel."""
        inputs = call.args[0] if call.args else call.kwargs["input"]
        dim = inputs.dim() - 1 if call.name in ("layer_norm", "rms_norm") else min(1, inputs.dim() - 1)
        others = [t for t in call.tensors if t is not inputs]
        for parameter in others:
            if parameter.dim() == 1 and parameter.shape[0] == inputs.shape[dim]:
                self.reads(parameter, 0, self.layout(inputs, dim))
        self._follow(inputs, results[0])
        self._through(results[0], *(p for p in others if p.dim() == 1))

    def keeps(self, call: TensorCall, results: Sequence[Tensor]) -> None:
        """Element by element, or within each channel."""
        out = results[0]
        operands = [t for t in call.tensors if t.dim() <= out.dim()]
        activations = [t for t in operands if id(t) not in self._owned]
        for tensor in activations:
            if tensor.dim() == out.dim():
                same = {d: d for d in range(out.dim()) if tensor.shape[d] == out.shape[d]}
                self._follow(tensor, out, same)
        if len(activations) > 1:
            self._made.pop(id(out), None)
            self._rows.pop(id(out), None)
        for dim in range(out.dim()):
            places = [(t, dim - out.dim() + t.dim()) for t in operands]
            wide = [(t, d) for t, d in places if d >= 0 and t.shape[d] == out.shape[dim] and out.shape[dim] > 1]
            layouts = {self.layout(t, d) for t, d in wide if id(t) not in self._owned}
            if len(layouts) > 1:
                reason: Found = f"`{call.name}` joins channels that lie in different ways"
                self._tags.setdefault(id(out), {})[dim] = reason
                layouts = {reason}
            for layout in layouts:
                for tensor, d in wide:
                    self.reads(tensor, d, layout)

    def reduces(self, call: TensorCall, results: Sequence[Tensor]) -> None:
        """A mean, a sum, ... over some dimensions."""
        inputs, out = call.tensors[0], results[0]
        given = call.get(1, "dim", None)
        if given is None or isinstance(given, bool):
            return
        reduced = {int(d) % inputs.dim() for d in (given if isinstance(given, Iterable) else (given,))}
        kept = [d for d in range(inputs.dim()) if d not in reduced]
        same = out.dim() == inputs.dim()
        self._follow(inputs, out, {d: d if same else i for i, d in enumerate(kept)})

    def moves(self, call: TensorCall, results: Sequence[Tensor]) -> None:
        """A transposition or a permutation."""
        inputs, n = call.tensors[0], call.tensors[0].dim()
        if call.name == "permute":
            given = call.args[1:] if len(call.args) > 2 else call.get(1, "dims")
            order = [int(d) % n for d in given]
        else:
            order = list(range(n))
            a, b = (int(call.get(i, f"dim{i - 1}")) % n for i in (1, 2))
            order[a], order[b] = b, a
        self._follow(inputs, results[0], {before: after for after, before in enumerate(order)})

    def reshapes(self, call: TensorCall, results: Sequence[Tensor]) -> None:
        """Dimensions are flattened, or taken apart."""
        inputs, out = call.tensors[0], results[0]
        for before, after in reshaped(call, inputs, out):
            if [inputs.shape[d] for d in before] == [out.shape[d] for d in after]:
                self._follow(inputs, out, dict(zip(before, after, strict=True)))
            elif len(after) == 1 and before:
                self._tags.setdefault(id(out), {})[after[0]] = self._flattened(inputs, before)
            elif len(before) == 1:
                self._taken_apart(inputs, before[0], out, after)
            elif any(isinstance(self.layout(inputs, d), str) or len(self.layout(inputs, d)) > 1 for d in before):
                reason = f"`{call.name}` mixes what was concatenated with other dimensions"
                self._tags.setdefault(id(out), {}).update(dict.fromkeys(after, reason))

    def _flattened(self, inputs: Tensor, dims: Sequence[int]) -> Found:
        first, *others = (self.layout(inputs, dim) for dim in dims)
        if isinstance(first, str):
            return first
        if any(isinstance(layout, str) or len(layout) > 1 for layout in others):
            return "what was concatenated is flattened into other channels"
        trailing = tuple(n for layout in others if not isinstance(layout, str) for n in layout[0].shape)
        if any(segment.inner is not None for segment in first) and any(n > 1 for n in trailing):
            return "nested concatenations are flattened with other dimensions"
        return tuple(segment._replace(shape=segment.shape + trailing) for segment in first)

    def _taken_apart(self, inputs: Tensor, dim: int, out: Tensor, dims: Sequence[int]) -> None:
        grid, layout = tuple(out.shape[d] for d in dims), self.layout(inputs, dim)
        self._split(inputs, dim, grid)
        if isinstance(layout, str) or len(layout) > 1:
            reason = layout if isinstance(layout, str) else "what was concatenated is taken apart"
            self._tags.setdefault(id(out), {}).update(dict.fromkeys(dims, reason))

    def chunks(self, call: TensorCall, results: Sequence[Tensor]) -> None:
        """Neighbouring channels part."""
        inputs = call.tensors[0]
        dim = int(call.get(2, "dim", 0)) if call.name != "glu" else int(call.get(1, "dim", -1))
        dim %= inputs.dim()
        parts = 2 if call.name == "glu" else len(results)
        even = call.name == "glu" or len({result.shape[dim] for result in results}) == 1
        grid: Shape | str = (parts, inputs.shape[dim] // parts)
        self._split(inputs, dim, grid if even else f"`{call.name}` takes parts of different lengths")
        layout = self.layout(inputs, dim)
        if layout != plain(inputs.shape[dim]) and parts > 1:
            for result in results:
                self._tags.setdefault(id(result), {})[dim] = f"`{call.name}` takes what was concatenated apart"

    def picks(self, call: TensorCall, results: Sequence[Tensor]) -> None:
        """Indexing: the leading part of channels is still leading, all else is not."""
        inputs, out = call.tensors[0], results[0]
        index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
        if not all(isinstance(i, slice | int) or i is Ellipsis for i in index) or any(
            isinstance(i, bool) for i in index
        ):
            self._lost(call, results)
            return
        hidden = inputs.dim() - sum(i is not Ellipsis for i in index)
        full = [j for i in index for j in ([slice(None)] * hidden if i is Ellipsis else [i])]
        full += [slice(None)] * (inputs.dim() - len(full))
        after = 0
        for dim, item in enumerate(full):
            if isinstance(item, int):
                continue
            if out.shape[after] == inputs.shape[dim] and item.step in (None, 1):
                self._follow_one(inputs, dim, out, after)
            elif item.start not in (None, 0) or item.step not in (None, 1):
                self._split(inputs, dim, "its channels are indexed")
                if dim in self._tags.get(id(inputs), {}):
                    self._tags.setdefault(id(out), {})[after] = (
                        "channels that were concatenated or flattened are indexed"
                    )
            elif dim in self._tags.get(id(inputs), {}):
                self._tags.setdefault(id(out), {})[after] = "channels that were concatenated or flattened are indexed"
            after += 1

    def _follow_one(self, before: Tensor, dim: int, after: Tensor, place: int) -> None:
        tag = self._tags.get(id(before), {}).get(dim)
        if tag is not None:
            self._tags.setdefault(id(after), {})[place] = tag


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _table(handler: Callable[[LayoutTrace, TensorCall, Sequence[Tensor]], None], names: str) -> dict[str, Any]:
    return dict.fromkeys(_names(names), handler)


_HANDLERS: Mapping[str, Callable[[LayoutTrace, TensorCall, Sequence[Tensor]], None]] = {
    **_table(LayoutTrace.joins, "cat concat concatenate hstack"),
    **_table(LayoutTrace.maps, "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"),
    **_table(LayoutTrace.norms, "batch_norm instance_norm group_norm layer_norm rms_norm prelu"),
    **_table(LayoutTrace.reduces, "mean sum amax amin prod var std norm logsumexp"),
    **_table(LayoutTrace.moves, "transpose swapaxes swapdims permute"),
    **_table(LayoutTrace.reshapes, "reshape view flatten unflatten squeeze unsqueeze view_as reshape_as"),
    **_table(LayoutTrace.chunks, "chunk split tensor_split split_with_sizes unbind glu"),
    **_table(LayoutTrace.picks, "getitem"),
    **_table(
        LayoutTrace.keeps,
        "relu relu6 gelu silu mish elu selu celu leaky_relu rrelu hardswish hardsigmoid hardtanh softplus softsign "
        "tanhshrink softshrink hardshrink threshold logsigmoid sigmoid tanh softmax log_softmax softmin normalize "
        "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout stochastic_depth "
        "add radd iadd sub rsub isub mul rmul imul div truediv rtruediv itruediv pow rpow neg abs exp log sqrt rsqrt "
        "square sin cos erf clamp clip maximum minimum where lerp addcmul masked_fill "
        "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d lp_pool2d adaptive_avg_pool1d "
        "adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d "
        "boolean_dispatch interpolate upsample pad local_response_norm contiguous clone detach to float double half "
        "bfloat16 type_as zeros_like ones_like full_like rand_like randn_like empty_like requires_grad",
    ),
}
_REARRANGING = _names(
    "index_select flip fliplr flipud roll gather take_along_dim pixel_shuffle pixel_unshuffle channel_shuffle sort "
    "topk argsort as_strided masked_select narrow"
)
_READING_THE_LAST = _names(
    "multi_head_attention_forward native_multi_head_attention scaled_dot_product_attention lstm gru rnn_tanh rnn_relu "
    "lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell embedding bilinear"
)


def trace_layouts(model: nn.Module, inputs: Inputs) -> dict[TensorDim, Found]:
    """How channels lie in the dimensions of parameters and buffers.

    Args:
        model: run once, in evaluation mode; on the meta device as a rule.
        inputs: on the same device.
    """
    found, training = LayoutTrace(model), model.training
    args, kwargs = inputs.arguments_for(model)
    handles = [
        module.register_forward_hook(lambda _, __, output, path=path: found.left(path, output))
        for path, module in model.named_modules()
    ]
    try:
        with torch.enable_grad(), found:  # as in training: checkpoints of activations warn of anything else
            model.eval()(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
        model.train(training)
    return found.found
