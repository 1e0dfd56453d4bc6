"""Which operator of torch does what with labels; what is not listed here may be thinned by nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from nas.compress.dependencies.labels import Labels
from nas.compress.dependencies.layers import convolves, embeds, gates, normalises, norms_channels, products, shuffles
from nas.compress.dependencies.operators import (
    Call,
    Rule,
    expands,
    fresh,
    indexes,
    joins,
    like,
    ordered,
    pads,
    permutes,
    pointwise,
    reduces,
    repeats,
    restrides,
    same,
    selects,
    slices,
    softmaxes,
    spatial,
    splits,
    triangles,
    turns,
    unbinds,
    unsqueezes,
    views,
)


def follow(func: Any, call: Call) -> Sequence[Labels]:
    """The labels of the outputs of an operator, after the ties that it demands."""
    name = call.name.rstrip("_") if not call.name.startswith("__") else call.name
    rule = RULES.get(name)
    if rule is None and _is_pointwise(func, name):
        rule = pointwise
    if rule is None and name.startswith(("upsample", "_upsample")):
        rule = spatial
    if rule is None and "pool" in name:
        rule = spatial
    if rule is None:
        for tensor in call.tensors:
            call.algebra.fix(call.labels(tensor), f"torch's {call.name} is not known to keep channels in their places")
        return [()] * len(call.outputs)
    return rule(call)


def _is_pointwise(func: Any, name: str) -> bool:
    """Whether torch says so, of the operator or of the one that writes nowhere."""
    if torch.Tag.pointwise in func.tags:
        return True
    twin = getattr(torch.ops.aten, name, None) if str(func).startswith("aten.") else None
    return twin is not None and any(torch.Tag.pointwise in getattr(twin, o).tags for o in twin.overloads())


def _table(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: Mapping[str, Rule] = {
    **_table(pointwise, "copy masked_fill where native_dropout fill clamp add mul sub div"),
    **_table(pointwise, "hardswish hardsigmoid mish log_sigmoid_forward _prelu_kernel celu selu relu6 leaky_relu"),
    **_table(pointwise, "threshold softplus hardtanh"),
    **_table(same, "clone _to_copy detach alias lift_fresh lift contiguous to zero _conj resolve_conj"),
    **_table(fresh, "zeros ones full empty new_zeros new_ones new_full new_empty rand randn empty_strided"),
    **_table(fresh, "new_empty_strided scalar_tensor"),
    **_table(like, "zeros_like ones_like full_like empty_like rand_like randn_like bernoulli"),
    **_table(restrides, "as_strided"),
    **_table(views, "view _unsafe_view reshape _reshape_alias squeeze flatten unflatten"),
    **_table(permutes, "permute transpose t"),
    **_table(expands, "expand"),
    **_table(unsqueezes, "unsqueeze"),
    **_table(slices, "slice"),
    **_table(selects, "select"),
    **_table(unbinds, "unbind"),
    **_table(splits, "split split_with_sizes chunk unsafe_split unsafe_chunk unsafe_split_with_sizes tensor_split"),
    **_table(joins, "cat concat stack"),
    **_table(repeats, "repeat"),
    **_table(reduces, "sum mean amax amin var std var_mean std_mean prod linalg_vector_norm norm logsumexp any all"),
    **_table(ordered, "max min argmax argmin cumsum cumprod sort topk"),
    **_table(softmaxes, "_softmax _log_softmax _safe_softmax softmax log_softmax"),
    **_table(pads, "constant_pad_nd"),
    **_table(spatial, "reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d grid_sampler_2d"),
    **_table(turns, "roll flip"),
    **_table(triangles, "tril triu"),
    **_table(indexes, "index index_select"),
    **_table(products, "mm bmm addmm baddbmm"),
    **_table(convolves, "convolution"),
    **_table(normalises, "native_layer_norm _fused_rms_norm"),
    **_table(norms_channels, "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training"),
    **_table(norms_channels, "cudnn_batch_norm _batch_norm_with_update _batch_norm_no_update native_group_norm"),
    **_table(embeds, "embedding"),
    **_table(gates, "glu"),
    **_table(shuffles, "pixel_shuffle"),
}
