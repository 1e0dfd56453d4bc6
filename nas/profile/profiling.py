"""What an architecture costs: parameters, multiply-adds, activations, memory, latency; of one model or of a space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import overload

from torch import nn

from nas.calls import explained
from nas.domains import Answer
from nas.errors import NasTypeError, explain
from nas.example_inputs import Example
from nas.profile.costs import Bounds, Cost, CostConstraint
from nas.profile.latency_prediction import LatencyTable, PredictionError, latency_table
from nas.profile.measured_latency import Backend, Latency, latency
from nas.profile.memory import PeakMemory
from nas.profile.model_profile import ModelProfile, ModuleProfile, profile_subject
from nas.profile.passes import sample_subject, subject_of
from nas.profile.space_profile import SpaceProfile
from nas.space import ModelSpace

__all__ = [
    "Backend",
    "Bounds",
    "Cost",
    "CostConstraint",
    "Example",
    "Latency",
    "LatencyTable",
    "ModelProfile",
    "ModuleProfile",
    "PeakMemory",
    "PredictionError",
    "SpaceProfile",
    "latency",
    "latency_table",
    "profile",
]


@overload
def profile(model: nn.Module | tuple[ModelSpace, Mapping[str, Answer]], example_input: Example) -> ModelProfile: ...
@overload
def profile(model: ModelSpace, example_input: Example, *, sample: Mapping[str, Answer]) -> ModelProfile: ...
@overload
def profile(model: ModelSpace, example_input: Example, *, sample: None = None) -> SpaceProfile: ...


@explained()
def profile(
    model: nn.Module | ModelSpace | tuple[ModelSpace, Mapping[str, Answer]],
    example_input: Example,
    *,
    sample: Mapping[str, Answer] | None = None,
) -> ModelProfile | SpaceProfile:
    """What a model costs, or what each architecture of a space costs.

    Everything happens on the meta device, where no weights are allocated, as far as a model can run there: one that
    computes with tensors from elsewhere (made by numpy, or held by no module) runs with fake tensors, and one that asks
    for values (`if mask.all()`) for real. It is always a copy that runs, hooks included; the model is not touched.

    Args:
        model: a module; a space; or a pair (space, sample).
        example_input: what `forward` takes, batch included: a tensor; the shape of one float tensor; a tuple of all
            that it takes by position (`(tokens, None, mask)`, `([image, image],)`, `({"x": x, "y": y},)`); or a dict of
            what it takes by keyword (`{"input_ids": tokens, "attention_mask": mask}`).
        sample: one architecture of the space.

    Returns:
        The costs of one architecture; for a space without a sample, the costs of all its samples.

    Raises:
        NasTypeError: a model or an example input of another kind.
        NasValueError: a sample that is not of the space, or a constructor or forward pass that fails; it names the
            sample, the module and the error.

    Example:
        >>> import torch
        >>> from nas import ValueChoice
        >>> found = profile(nn.Linear(4, 8), (1, 4))
        >>> found.parameters, found.multiply_adds, found.flops, found.activations
        (40, 32, 64, 8)
        >>> profile(nn.Bilinear(4, 3, 8), {"input1": torch.ones(2, 4), "input2": torch.ones(2, 3)}).parameters
        104
        >>> space = ModelSpace(lambda: nn.Linear(4, ValueChoice([8, 16, 32], label="width")))
        >>> costs = profile(space, (1, 4))
        >>> costs.flops({"width": 16}), costs.flops.bounds().least
        (128, 64.0)
        >>> space.sample(0, where=costs.flops < 100)
        {'width': 8}
    """
    if isinstance(model, tuple) and len(model) == 2 and isinstance(model[0], ModelSpace) and sample is None:
        model, sample = model
    if isinstance(model, ModelSpace):
        if sample is None:
            return SpaceProfile(model, example_input)
        return profile_subject(sample_subject(model, sample), example_input)
    if not isinstance(model, nn.Module):
        rule, mend = "profile needs a module, a ModelSpace or a pair (space, sample)", "an instance, not its class"
        raise NasTypeError(explain(rule, got=model, mend=mend))
    if sample is not None:
        raise NasTypeError(
            explain("a sample belongs to a ModelSpace, but this is a module", got=model, mend="profile(space, ...)")
        )
    return profile_subject(subject_of(model), example_input)
