"""The relaxed supernet: all architectures of a space at once, weighted by architecture parameters, as in DARTS."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, final

import torch
from torch import Tensor, nn

from nas._compat.torch_internals import tree_leaves
from nas.checks import check_int, check_word
from nas.domains import Answer, Sample
from nas.errors import NasValueError, explain
from nas.oneshot.paths import changing_labels, computed_buffer, equal_tensors, has_values, indexed, region
from nas.oneshot.relaxed.architecture import Architecture
from nas.oneshot.relaxed.discretisation import discretise
from nas.oneshot.relaxed.extraction import extract, labels_at_fault, pairs
from nas.oneshot.relaxed.handler import Relax, relaxed_network
from nas.oneshot.relaxed.masks import find_masks, masked
from nas.oneshot.relaxed.parametrisations import Parametrisation
from nas.oneshot.relaxed.shape_choices import ShapeChoices
from nas.profile import Example, build_on_meta, real_example
from nas.random_state import seeded
from nas.space import ModelSpace

_TOLERANCE = 1e-5
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
        self.model: nn.Module = masked(network, self._masks, relax.mixing)
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

    def check(self, example_inputs: Example, samples: Sequence[Sample] | None = None) -> None:
        """Runs the supernet, and compares it with separately built architectures: do this before training.

        Args:
            example_inputs: a tensor, a tuple of tensors, or the shape of one, batch included.
            samples: to compare; the default and three random ones where omitted.

        Raises:
            NasValueError: candidates with outputs of different shapes, or an architecture whose output differs from
                that of the supernet (by 1e-5, relative to the largest number in it); the labels are named.
        """
        device = next((tensor.device for tensor in self.model.parameters()), None)
        inputs = tuple(tensor.to(device) for tensor in real_example(example_inputs))
        with self.undisturbed(), torch.no_grad():
            self.architecture.mix()
            self.model(*inputs)
            if self._partial_channels > 1:
                return
            for sample in samples if samples is not None else self._some_samples():
                error = self._difference(sample, inputs)
                if error > _TOLERANCE:
                    labels = labels_at_fault(
                        self.space, sample, lambda other: self._difference(other, inputs) > _TOLERANCE
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
            with torch.random.fork_rng(devices=[]):
                yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            mixing.weights, mixing.active = weights, active

    def _difference(self, sample: Sample, inputs: tuple[Tensor, ...]) -> float:
        """The greatest difference between supernet and architecture, relative to the greatest output."""
        self.architecture.one_hot(sample)
        ours = _tensors(self.model(*inputs))
        theirs = _tensors(self.extract(sample, device=inputs[0].device).eval()(*inputs))
        if [tensor.shape for tensor in ours] != [tensor.shape for tensor in theirs]:
            return math.inf
        scale = max((float(tensor.abs().max()) for tensor in theirs if tensor.numel()), default=0.0)
        differences = (float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True) if a.numel())
        return max(differences, default=0.0) / max(scale, 1e-12)

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


def _tensors(output: object) -> list[Tensor]:
    """The tensors of floating point in an output, in order."""
    leaves = tree_leaves(output)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]
