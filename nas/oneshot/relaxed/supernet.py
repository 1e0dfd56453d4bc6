"""The relaxed supernet: all architectures of a space at once, weighted by architecture parameters, as in DARTS."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from nas._compat.steady_draws import SteadyDraws
from nas.checks import check_int, check_word
from nas.domains import Answer, Sample
from nas.errors import NasValueError, explain
from nas.example_inputs import Example, Inputs, read_example, tensors_of
from nas.oneshot.paths import changing_labels, computed_buffer, equal_tensors, has_values, indexed, region
from nas.oneshot.relaxed.architecture import Architecture
from nas.oneshot.relaxed.discretisation import discretise
from nas.oneshot.relaxed.extraction import extract, labels_at_fault, pairs
from nas.oneshot.relaxed.handler import Relax, relaxed_network
from nas.oneshot.relaxed.masks import find_masks, mask
from nas.oneshot.relaxed.mixtures import asked_of
from nas.oneshot.relaxed.parametrisations import Parametrisation
from nas.oneshot.relaxed.recomputation import RemembersCheckpoints
from nas.oneshot.relaxed.shape_choices import ShapeChoices
from nas.profile import build_on_meta
from nas.random_state import seeded, untouched
from nas.space import ModelSpace

_TOLERANCE = 1e-5
_ROUNDINGS = 8
"""Numbers of half precision may differ by so many: 8 * 1.2e-7 < 1e-5, so that others are not concerned."""
_SAMPLES = 3


@final
class RelaxedSupernet:
    """A model in which every choice of a space is a weighted mixture of its candidates.

    LayerChoice: the weighted sum of all candidates. InputChoice: the weighted sum or mean of the inputs. Repeat: the
    weighted sum of what leaves each depth. ValueChoice on shapes: the largest parameters, times the weighted sum of the
    masks of the answers. A label has one architecture parameter wherever it is asked.

    Args:
        space: what is searched.
        seed: of the weights and the architecture parameters; the global random state stays as it is.
        edges: how nodes that read k distinct states through operations (a DARTS cell) weigh these: "sum" adds all, as
            in DARTS; "softmax" learns a weight for each, the edge normalisation of PC-DARTS.
        partial_channels: K of PC-DARTS: a mixture on an edge computes 1/K of the channels. Such a supernet ranks
            architectures, but has no weights for them.
        parametrisation: what the architecture parameters are; logits where omitted.

    Attributes:
        model: the supernet, with the weights alone as its parameters; called as the models of the space are.
        architecture: the parameters of the choices; what its `mix` and `one_hot` set, the model reads.

    Raises:
        NasValueError: a choice that cannot be relaxed, with the reason; shapes are compared by `check`.

    Example:
        >>> from nas import LayerChoice
        >>> space = ModelSpace(lambda: LayerChoice({"same": nn.Identity, "flip": nn.Softsign}, label="op"))
        >>> supernet = RelaxedSupernet(space)
        >>> supernet.architecture.one_hot({"op": "flip"})
        >>> supernet.model(torch.ones(1))
        tensor([0.5000])
    """

    def __init__(
        self,
        space: ModelSpace,
        *,
        seed: int = 0,
        edges: Literal["sum", "softmax"] = "sum",
        partial_channels: int = 1,
        parametrisation: Parametrisation | None = None,
    ) -> None:
        seed = check_int("seed", seed, where="RelaxedSupernet")
        check_word("edges", edges, ("sum", "softmax"), where="RelaxedSupernet")
        partial_channels = check_int("partial_channels", partial_channels, least=1, where="RelaxedSupernet")
        space.search_space.require_one_domain_each("a supernet of mixtures")
        self.space = space
        self._partial_channels = partial_channels

        def handler(values: Mapping[str, Answer] | None = None) -> Relax:
            return Relax(values, learn_edges=edges == "softmax", partial_channels=partial_channels)

        self._masks = find_masks(ShapeChoices(space, handler))
        relax = handler(self._masks.largest)
        with seeded(seed):
            network = relaxed_network(space, relax)
        if partial_channels > 1 and not relax.thinned:
            raise NasValueError(
                explain(
                    "partial channels are those of the layers on edges, but no InputChoice of this space has `each`",
                    got=partial_channels,
                    where="partial_channels",
                    mend="partial_channels=1",
                )
            )
        self._network, self._mixing, self._edge_labels = network, relax.mixing, relax.edge_labels
        indicators = mask(network, self._masks, relax.mixing)
        self.model: nn.Module = network
        remembers = RemembersCheckpoints(relax.mixing)
        self.model.register_forward_pre_hook(remembers.before)
        self.model.register_forward_hook(remembers.after, always_call=True)
        relax.mixing.belong_to(network, *([] if indicators is None else [indicators]))
        self.architecture = Architecture(relax.mixing, seed=seed, parametrisation=parametrisation)
        if partial_channels == 1:
            self._check_shapes()

    @property
    def has_weights(self) -> bool:
        """Whether its architectures can take its weights along: not those of partial channels."""
        return self._partial_channels == 1

    def discretise(self, k: int = 1) -> list[Sample]:
        """The k best samples, best first: see `nas.oneshot.relaxed.discretisation.discretise` for what is best.

        Raises:
            NasValueError: k below 1, or no sample that satisfies the constraint of the space was found.
        """
        return discretise(self.space.search_space, self.architecture, self._edge_labels, k)

    def extract(self, sample: Mapping[str, Answer], *, device: torch.device | str | None = None) -> nn.Module:
        """The architecture of a sample with its own copies of the weights and buffers.

        Args:
            sample: of the space.
            device: where it is made.

        Raises:
            NasValueError: the sample is not of the space, or the supernet has partial channels.
        """
        if self._partial_channels > 1:
            raise NasValueError(
                explain(
                    "a supernet of partial channels has no weights for whole ones",
                    got=self._partial_channels,
                    where="partial_channels",
                    mend="train the architecture from scratch: `space.build(sample)`",
                )
            )
        return extract(self.space, self._network, sample, device=device)

    def call(self, example: Inputs) -> Any:
        """What the model yields for an example, as its mixtures are; its random numbers are the same each time."""
        return _called(self.model, asked_of(self._network), example)

    def check(self, example_inputs: Example | Inputs, samples: Sequence[Sample] | None = None) -> None:
        """Runs the supernet, and compares it with separately built architectures: do this before training.

        Args:
            example_inputs: what the model is called with: a tensor, the shape of one, batch included, a tuple of all
                that it takes by position, a dict of what it takes by keyword (see `nas.profile.Example`).
            samples: to compare; the default and three random ones where omitted.

        Raises:
            NasValueError: candidates with outputs of different shapes, or an architecture whose output differs from
                that of the supernet (by 1e-5, relative to the largest number in it, or by some roundings of a supernet
                in half precision); the labels are named.
        """
        inputs = self._as_the_model(example_inputs)
        with self.undisturbed(), torch.no_grad():
            self.architecture.mix()
            self.call(inputs)
            if self._partial_channels > 1:
                return
            tolerance = self._tolerance()
            for sample in samples if samples is not None else self._some_samples():
                error = self._difference(sample, inputs)
                if not error <= tolerance:
                    labels = labels_at_fault(
                        self.space, sample, lambda other: not self._difference(other, inputs) <= tolerance
                    )
                    raise NasValueError(
                        explain(
                            "the relaxed supernet computes something else than the architecture: their outputs "
                            + ("have other shapes" if math.isinf(error) else f"differ by {error:.1g}"),
                            got={label: sample[label] for label in labels},
                            where=", ".join(f"label {label!r}" for label in labels),
                            mend="make it a LayerChoice of whole layers, or search this space by paths",
                        )
                    )

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Evaluation mode inside; afterwards modes, weights of mixtures and random numbers are as they were."""
        mixing = self._mixing
        modes = {module: module.training for module in self.model.modules()}
        weights, active = dict(mixing.weights), dict(mixing.active)
        try:
            self.model.eval()
            with untouched(devices=True):
                yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            mixing.weights, mixing.active = weights, active

    def _as_the_model(self, example: Example | Inputs) -> Inputs:
        """What an example stands for, where the model is; noise in the numbers that the model computes with."""
        inputs = read_example(example)
        weight = next((tensor for tensor in self.model.parameters() if tensor.is_floating_point()), None)
        if weight is None:
            return inputs
        is_shape = not isinstance(example, Inputs) and next(tensors_of(example), None) is None
        if is_shape:
            inputs = inputs.converted(lambda tensor: tensor.to(weight.dtype))
        return inputs.on(weight.device)

    def _difference(self, sample: Sample, inputs: Inputs) -> float:
        """The greatest difference between supernet and architecture, relative to the greatest output.

        Where they draw noise for other numbers of channels, without the chance in it.
        """
        found = self._difference_as_drawn(sample, inputs)
        if not found <= self._tolerance():
            with SteadyDraws():
                return self._difference_as_drawn(sample, inputs)
        return found

    def _difference_as_drawn(self, sample: Sample, inputs: Inputs) -> float:
        self.architecture.one_hot(sample)
        ours = _tensors(self.call(inputs))
        architecture = self.extract(sample, device=inputs.tensors[0].device).eval()
        theirs = _tensors(_called(architecture, architecture, inputs))
        if [tensor.shape for tensor in ours] != [tensor.shape for tensor in theirs]:
            return math.inf
        pairs = [(a.double(), b.double()) for a, b in zip(ours, theirs, strict=True) if a.numel()]
        if any(not torch.equal(a.isfinite(), b.isfinite()) for a, b in pairs):
            return math.nan
        scale = max((float(b.nan_to_num(0.0, 0.0, 0.0).abs().max()) for _, b in pairs), default=0.0)
        differences = (float((a - b).nan_to_num(0.0, 0.0, 0.0).abs().max()) for a, b in pairs)
        return max(differences, default=0.0) / max(scale, 1e-12)

    def _tolerance(self) -> float:
        """Of a difference, in the numbers that the supernet computes with."""
        kinds = [tensor.dtype for tensor in self.model.parameters() if tensor.is_floating_point()]
        return max([_TOLERANCE, *(_ROUNDINGS * torch.finfo(kind).eps for kind in kinds)])

    def _check_shapes(self) -> None:
        """Refuses, by building some architectures without weights, what depends on choices in another way."""
        for sample in self._some_samples():
            self._masks.check(pairs(self._network, build_on_meta(self.space, sample), sample), sample)
            if computed := self._computed_buffers(sample):
                largest = {**sample, **{label: a for label, a in self._masks.largest.items() if label in sample}}
                labels = changing_labels(largest, sample, lambda other: bool(self._computed_buffers(other)))
                raise computed_buffer(computed[0], sample, labels)

    def _computed_buffers(self, sample: Sample) -> list[str]:
        """The buffers, none trained yet, that an architecture computes otherwise, not by chance."""
        if not has_values(self.space.search_space) or next(self._network.buffers(), None) is None:
            return []
        differing: list[dict[str, Tensor]] = []
        for seed in (0, 1):  # random ones are as good as any others
            with seeded(seed):
                built = self.space.build(sample)
            found: dict[str, Tensor] = {}
            for pair in pairs(self._network, built, sample):
                for name, large, small in pair.tensors():
                    if not isinstance(small, nn.Parameter):
                        place = region(pair.part, name, tuple(large.shape), full_module=pair.whole)
                        if not equal_tensors(indexed(large, place), small):
                            found[f"{pair.name}.{name}"] = small
            if not found:
                return []
            differing.append(found)
        first, second = differing
        return [name for name, tensor in first.items() if name in second and equal_tensors(tensor, second[name])]

    def _some_samples(self) -> list[Sample]:
        """The default and a few random ones."""
        tree, rng = self.space.search_space, random.Random(0)
        samples = [tree.default(), *(tree.sample(rng) for _ in range(_SAMPLES))]
        hyperparameters = self.space.hyperparameters
        return [{k: v for k, v in s.items() if k not in hyperparameters} for s in samples if tree.allows(s)]


def _called(model: nn.Module, like: nn.Module, inputs: Inputs) -> Any:
    """What a model yields that is called like another one.

    Random numbers are the same each time, so that what is random in a model is no difference between two.
    """
    args, kwargs = inputs.arguments_for(like)
    with seeded(0):
        return model(*args, **kwargs)


def _tensors(output: object) -> list[Tensor]:
    """The tensors of floating point in an output, in order."""
    return [tensor for tensor in tensors_of(output) if tensor.is_floating_point()]
