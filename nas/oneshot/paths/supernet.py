"""The supernet of paths: every architecture of a space runs on one store of weights, shared by name."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, final

import torch
from torch import Tensor, nn

from nas._compat.torch_internals import own_buffers, own_parameters
from nas.checks import check_int
from nas.domains import Answer, Sample, as_key
from nas.errors import NasTypeError, NasValueError, explain
from nas.example_inputs import Example, Inputs, read_example, tensors_of
from nas.oneshot.paths.computed_buffers import refuse_computed_buffers
from nas.oneshot.paths.facade import Facade
from nas.oneshot.paths.inventory import Built, Inventory, Unforeseen
from nas.oneshot.paths.naming import (
    ModuleSite,
    OnePath,
    TensorSite,
    answers_from,
    construct_with_weights,
    named,
    places_of,
)
from nas.oneshot.paths.selection import Selection
from nas.oneshot.paths.slicing import Region, indexed
from nas.oneshot.paths.store import Store
from nas.oneshot.paths.subnets import Part, Subnet
from nas.oneshot.paths.watched import Twin, Watched
from nas.random_state import seeded
from nas.space import ModelSpace


@final
class PathSupernet(Facade):
    """Every architecture of a space, with weights that are shared by name.

    There is one parameter for each place in the module tree, as large as any architecture needs it; candidates of a
    LayerChoice have parameters of their own. One architecture at a time, the path, runs on slices of them: the
    leading channels, the centre of the kernels. Parameters off the path take no part: their gradient stays None.

    To who walks it, it is the module tree of all architectures: modules of the types and names that these have, with
    the shared parameters in them. What is done to them, initialisation, freezing, modes, hooks, attributes, every path
    has. Only the model itself can be called.

    Args:
        space: any model space.
        seed: of the weights, which the layers' own initialisations draw.
        example_input: what the network is called with: a tensor, the shape of one, a tuple of what it takes by position
            or a dict of what it takes by keyword. It is needed where the widths of layers are chosen, to see what
            lies where in the channels that a layer reads; on any device.
        cache: how many subnets are kept.

    Raises:
        NasValueError: architectures that cannot share their parameters soundly; the message has the labels.

    Example:
        >>> from nas import ModelSpace, ValueChoice
        >>> space = ModelSpace(lambda: nn.Sequential(nn.Linear(3, ValueChoice([2, 4], label="width"))))
        >>> supernet = PathSupernet(space, example_input=torch.zeros(1, 3))
        >>> supernet.select({"width": 2})
        >>> supernet(torch.zeros(5, 3)).shape, supernet[0].weight.shape
        (torch.Size([5, 2]), torch.Size([4, 3]))
    """

    def __init__(
        self,
        space: ModelSpace,
        *,
        seed: int = 0,
        example_input: Example | Inputs | None = None,
        cache: int = 256,
    ) -> None:
        super().__init__()
        seed = check_int("seed", seed, where="PathSupernet")
        cache = check_int("cache", cache, least=1, where="PathSupernet")
        example = None if example_input is None else read_example(example_input)
        self.inventory = Inventory(space, seed=seed, example=example)
        self._store = Store(self.inventory, seed)
        refuse_computed_buffers(self.inventory, self._store)
        self._watched = {name: Watched(name, module) for name, module in self._store.modules.items()}
        self.uncovered: set[Hashable] = set()
        """The samples that were asked about and need more than the store has, by a key."""
        self._cache: OrderedDict[Hashable, Subnet | Future[Subnet]] = OrderedDict()
        self._capacity = cache
        self._building = threading.Lock()
        self._worker: ThreadPoolExecutor | None = None
        self._selection = Selection()
        self._selected: Subnet | None = None
        self._made_of = self._number_type
        self.show(self._store.root)

    @property
    def space(self) -> ModelSpace:
        """Whose architectures these are."""
        return self.inventory.space

    @property
    def covered(self) -> ModelSpace:
        """The space without the architectures that need more than the store has.

        Where several answers together decide what is largest, the largest can be too rare to be found beforehand.
        """
        return self.space.where(self.covers) if self.inventory.joint else self.space

    def covers(self, sample: Mapping[str, Answer]) -> bool:
        """Whether the store has all that the architecture of a sample needs."""
        key = _key(sample)
        if key not in self.uncovered:
            try:
                self._subnet(sample)
            except Unforeseen:
                self.uncovered.add(key)
        return key not in self.uncovered

    @property
    def store(self) -> nn.Module:
        """The module tree that holds the weights: what the supernet shows itself as."""
        return self.shown

    @property
    def _number_type(self) -> torch.dtype | None:
        return next((p.dtype for p in self._store.root.parameters() if p.is_floating_point()), None)

    # The path.

    @property
    def sample(self) -> Sample | None:
        """Of the selected path; a copy follows its original until a path is selected in the copy."""
        sample = self._selection.sample
        return None if sample is None else dict(sample)

    def select(self, sample: Mapping[str, Answer]) -> None:
        """Makes this the path that `forward` runs.

        Raises:
            NasValueError: the sample is not of this space.
        """
        self._selected = self._subnet(sample)
        self._selection.sample = self._selected.sample

    def _path(self) -> Subnet:
        """The selected one, the base model's where there is none."""
        sample = self._selection.sample
        if self._selected is None or self._selected.sample is not sample:
            self._selected = self._subnet(self.space.default() if sample is None else sample)
            if sample is not None:
                self._selected.sample = sample  # the same one, that followers see no other
        return self._selected

    def prepare(self, samples: Iterable[Mapping[str, Answer]]) -> None:
        """Begins to build the subnets of the next paths.

        They are built in a thread where constructing was seen to leave the global random states alone; else nothing is
        done, and `select` builds them.
        """
        if not self.inventory.threads:
            return
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="nas-subnets")
        for sample in samples:
            if (key := _key(sample)) not in self._cache:
                self._keep(key, self._worker.submit(self._build, dict(sample), alone=False))

    def forward(self, *inputs: Any, **named_inputs: Any) -> Any:
        """The output of the selected path, the base model's where none was selected."""
        subnet = self._path()
        subnet.bind(self._store)
        return subnet.run(inputs, named_inputs)

    def active(self) -> list[str]:
        """The names, as in `named_parameters()`, of the parameters that the selected path uses."""
        return [] if self.sample is None else self._path().active()

    def extract(
        self, sample: Mapping[str, Answer], *, device: torch.device | str | None = None, settings: bool = True
    ) -> nn.Module:
        """The architecture of a sample with its own copies of the weights and buffers.

        Args:
            sample: label -> answer.
            device: where it is made; that of the store where omitted.
            settings: whether it gets the attributes and modes that were set on modules of the supernet too.
        """
        return self._extracted(sample, device, settings=settings)

    def _extracted(
        self,
        sample: Mapping[str, Answer],
        device: torch.device | str | None = None,
        *,
        settings: bool = True,
        hooks: bool = False,
    ) -> nn.Module:
        """Constructs it once, with numbers: the names of its tensors are read off that."""
        if device is None:
            device = next(self.parameters(), torch.empty(0)).device
        regions: dict[tuple[str, str], Region | None] = {}
        if self.inventory.follows:  # its forward pass was seen, without numbers
            regions = {(part.path, part.local): part.region for part in self._subnet(sample).parts}
        with seeded(0), torch.no_grad(), self.inventory.default_dtype():
            model, handler = construct_with_weights(self.space, self.space.validate(sample), torch.device(device))
            sites = list(handler.names.sites(model, self.inventory.numbering))
            for site in sites:
                for watched in self._stored(site):
                    if watched.changed():
                        self._store.generation += 1
            for name, place in named(places_of(sites)):
                whole, own = self._store.tensor(name), place.tensor
                spot = place.path, place.local
                region = regions[spot] if spot in regions else self.inventory.region(name, place, {})
                if own.dtype != whole.dtype:
                    own.data = torch.empty_like(own, dtype=whole.dtype)
                own.copy_(whole if region is None else indexed(whole, region))
                if isinstance(own, nn.Parameter):
                    own.requires_grad_(whole.requires_grad)
            if not settings:
                return model.train(self.training)
            for twin in self._twins(sites).values():
                twin.apply_settings(hooks=hooks)
        return model

    def check(self, example_inputs: Example | Inputs, samples: Iterable[Mapping[str, Answer]]) -> None:
        """Whether paths compute what their architectures compute, in evaluation and in training.

        The store, the modes and the path are afterwards what they were.

        Args:
            example_inputs: what the network is called with.
            samples: of the paths to look at.

        Raises:
            NasValueError: a path whose output is off by more than 1e-5 (more in half precision).
        """
        inputs = self._converted(read_example(example_inputs))
        modes = [(module, module.training) for module in self.modules()]
        selected, selection = self._selected, self._selection
        buffers = {name: buffer.clone() for name, buffer in self.named_buffers()}
        self._selection = Selection()
        try:
            for sample in samples:
                self.select(sample)
                for mode in (False, True):
                    self.train(mode)
                    self._check(inputs, sample)
        finally:
            for module, mode in modes:
                module.training = mode
            self._selected, self._selection = selected, selection
            with torch.no_grad():
                for name, buffer in self.named_buffers():
                    buffer.copy_(buffers[name])

    def _check(self, inputs: Inputs, sample: Mapping[str, Answer]) -> None:
        alone = self._extracted(self._path().sample, hooks=True)
        outputs = []
        args, kwargs = inputs.arguments_for(alone)
        for model in (alone, self):
            with seeded(0), torch.set_grad_enabled(self.training):
                outputs.append([tensor.detach() for tensor in tensors_of(model(*args, **kwargs))])
        for expected, found in zip(*outputs, strict=True):
            tolerance = _tolerance(expected)
            if not torch.allclose(expected, found, rtol=tolerance, atol=tolerance, equal_nan=True):
                raise NasValueError(
                    explain(
                        f"the path computes something else than its architecture, off by up to "
                        f"{float((expected - found).abs().max()):.2g}",
                        got=dict(sample),
                        where=f"labels {', '.join(map(repr, sample))}",
                        mend="keep what a forward pass computes in parameters and buffers, and ask no choices in it",
                    )
                )

    def _converted(self, inputs: Inputs) -> Inputs:
        """The example where the weights are, and of their number type where they were given another."""
        first, before, now = next(self.parameters(), None), self._made_of, self._number_type
        device = None if first is None else first.device

        def convert(tensor: Tensor) -> Tensor:
            changed = now if tensor.dtype == before and now != before else None
            return tensor.detach().to(device=device, dtype=changed)

        return inputs.converted(convert)

    # Subnets.

    def _subnet(self, sample: Mapping[str, Answer]) -> Subnet:
        key = _key(sample)
        found = self._cache.pop(key, None)
        if isinstance(found, Future):
            found = found.result()
        if found is None:
            found = self._build(sample, alone=True)
        self._keep(key, found)
        return found

    def _keep(self, key: Hashable, subnet: Subnet | Future[Subnet]) -> None:
        self._cache[key] = subnet
        while len(self._cache) > self._capacity:
            self._cache.popitem(last=False)

    def _build(self, sample: Mapping[str, Answer], *, alone: bool) -> Subnet:
        """Without weights. `alone`: on the thread that trains, where the random states can be put back."""
        with self._building:
            complete = self.space.validate(sample)
            answers = answers_from(complete)
            built = self.inventory.build(lambda: OnePath(answers), alone=alone and not self.inventory.calm)
            parts = [self._part(name, place, built) for name, place in built.places]
            return Subnet(built.sample, built.model, parts, self._twins(built.sites))

    def _twins(self, sites: Iterable[ModuleSite]) -> dict[str, Twin]:
        """The modules of a path by their paths, those that stand in several places once."""
        twins: dict[str, Twin] = {}
        seen: set[int] = set()
        for site in sites:
            if id(site.module) in seen:
                continue
            seen.add(id(site.module))
            stored = self._stored(site)
            called = [watched for watched in stored if watched.name]
            twins[site.path] = Twin(site.module, stored, called, self._nearest(site.name))
        return twins

    def _stored(self, site: ModuleSite) -> list[Watched]:
        """The modules of the store that say how one of a path is set."""
        return [self._watched[name] for name in (*site.choices, site.name) if name in self._watched]

    def _nearest(self, name: str) -> Watched:
        """The module of a place, that around it where none was found there."""
        while name not in self._watched:
            name = name.rpartition(".")[0]
        return self._watched[name]

    def _part(self, name: str, place: TensorSite, built: Built) -> Part:
        parameter = isinstance(place.tensor, nn.Parameter)
        return Part(
            path=place.path,
            local=place.local,
            slot=((own_parameters if parameter else own_buffers)(place.module), place.local),
            name=name,
            region=self.inventory.region(name, place, built.layouts),
            parameter=parameter,
        )

    # What changes the tensors of the store.

    def moved(self) -> None:
        """What was prepared of its tensors is of old ones."""
        self._store.generation += 1

    def __getstate__(self) -> dict[str, Any]:
        """Without what can be built again."""
        state = super().__getstate__()
        state.update(_cache=OrderedDict(), _building=None, _worker=None, _selected=None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._building = threading.Lock()


def _tolerance(tensor: Tensor) -> float:
    """Slices are computed with in another order than copies of them are."""
    return max(1e-5, 10 * torch.finfo(tensor.dtype).eps) if tensor.is_floating_point() else 1e-5


def _key(sample: Mapping[str, Answer]) -> Hashable:
    if not isinstance(sample, Mapping):
        raise NasTypeError(explain("a sample must be a dict label -> answer", got=sample))
    return frozenset((label, as_key(answer)) for label, answer in sample.items())
