"""The supernet of paths: every architecture of a space runs on one store of weights, shared by name."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, final

import torch
from torch import Tensor, nn

from nas._compat.torch_internals import MovableModule, own_buffers, own_parameters, tree_leaves
from nas.checks import check_int
from nas.domains import Answer, Sample, as_key
from nas.errors import NasTypeError, NasValueError, explain
from nas.oneshot.paths.computed_buffers import refuse_computed_buffers
from nas.oneshot.paths.inventory import Built, Inventory
from nas.oneshot.paths.naming import OnePath, TensorSite, answers_from
from nas.oneshot.paths.slicing import indexed
from nas.oneshot.paths.store import Store
from nas.oneshot.paths.subnets import Part, Subnet
from nas.random_state import seeded
from nas.space import ModelSpace


@final
class PathSupernet(MovableModule):
    """Every architecture of a space, with weights that are shared by name.

    The store has one parameter for each place in the module tree, as large as any architecture needs it; candidates of
    a LayerChoice have parameters of their own. One architecture at a time, the path, runs on slices of them: the
    leading channels, the centre of the kernels. Parameters off the path take no part: their gradient stays None.

    Args:
        space: any model space.
        seed: of the weights, which the layers' own initialisations draw.
        example_input: what the network is called with. It is needed where the widths of layers are chosen, to see what
            lies where in the channels that a layer reads; on any device.
        cache: how many subnets are kept.

    Raises:
        NasValueError: architectures that cannot share their parameters soundly; the message has the labels.

    Example:
        >>> from nas import ModelSpace, ValueChoice
        >>> space = ModelSpace(lambda: nn.Linear(3, ValueChoice([2, 4], label="width")))
        >>> supernet = PathSupernet(space, example_input=(torch.zeros(1, 3),))
        >>> supernet.select({"width": 2})
        >>> supernet(torch.zeros(5, 3)).shape, supernet.store.weight.shape
        (torch.Size([5, 2]), torch.Size([4, 3]))
    """

    def __init__(
        self, space: ModelSpace, *, seed: int = 0, example_input: tuple[Any, ...] | None = None, cache: int = 256
    ) -> None:
        super().__init__()
        seed = check_int("seed", seed, where="PathSupernet")
        cache = check_int("cache", cache, least=1, where="PathSupernet")
        self.space = space
        self.inventory = Inventory(space, seed=seed, example=example_input)
        self.store = Store(self.inventory, {name: e.shape for name, e in self.inventory.entries.items()}, seed)
        refuse_computed_buffers(self.inventory, self.store)
        self._cache: OrderedDict[Hashable, Subnet | Future[Subnet]] = OrderedDict()
        self._capacity = cache
        self._generation = 0
        self._building = threading.Lock()
        self._worker: ThreadPoolExecutor | None = None
        self._selected: Subnet | None = None
        self.register_load_state_dict_post_hook(_renew)  # type: ignore[no-untyped-call]  # torch's

    # The path.

    @property
    def sample(self) -> Sample | None:
        """Of the selected path."""
        return None if self._selected is None else dict(self._selected.sample)

    def select(self, sample: Mapping[str, Answer]) -> None:
        """Makes this the path that `forward` runs.

        Raises:
            NasValueError: the sample is not of this space.
        """
        self._selected = self._subnet(sample)

    def prepare(self, samples: Iterable[Mapping[str, Answer]]) -> None:
        """Begins to build the subnets of the next paths.

        They are built in a thread where constructing was seen to leave the global random states alone; else nothing is
        done, and `select` builds them.
        """
        if not self.inventory.calm:
            return
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="nas-subnets")
        for sample in samples:
            if (key := _key(sample)) not in self._cache:
                self._keep(key, self._worker.submit(self._build, dict(sample), alone=False))

    def forward(self, *inputs: Any, **named_inputs: Any) -> Any:
        """The output of the selected path, the base model's where none was selected."""
        if self._selected is None:
            self.select(self.space.default())
        subnet = self._selected
        assert subnet is not None
        subnet.bind(self.store, self._generation)
        if subnet.module.training != self.training:
            subnet.module.train(self.training)
        return subnet.run(inputs, named_inputs)

    def active(self) -> list[str]:
        """The names, as in `named_parameters()`, of the parameters that the selected path uses."""
        return [] if self._selected is None else [f"store.{name}" for name in self._selected.active()]

    def extract(self, sample: Mapping[str, Answer], *, device: torch.device | str | None = None) -> nn.Module:
        """The architecture of a sample with its own copies of the weights and buffers.

        Args:
            sample: label -> answer.
            device: where it is made; that of the store where omitted.
        """
        subnet = self._subnet(sample)
        if device is None:
            device = next(self.store.parameters(), torch.empty(0)).device
        with seeded(0), torch.no_grad():
            model = self.space.build(subnet.sample, device=device)
            modules = dict(model.named_modules(remove_duplicate=False))
            for part in subnet.parts:
                module, whole = modules[part.path], self.store.tensor(part.name)
                own = (own_parameters if part.parameter else own_buffers)(module)[part.local]
                assert own is not None
                own.copy_(whole if part.region is None else indexed(whole, part.region))
        return model.train(self.training)

    def check(self, example_inputs: tuple[Any, ...], samples: Iterable[Mapping[str, Answer]]) -> None:
        """Whether paths compute what their architectures compute, in evaluation and in training.

        The store, the mode and the path are afterwards what they were.

        Args:
            example_inputs: what the network is called with.
            samples: of the paths to look at.

        Raises:
            NasValueError: a path whose output is off by more than 1e-5.
        """
        training, selected = self.training, self._selected
        buffers = {name: buffer.clone() for name, buffer in self.store.named_buffers()}
        try:
            for sample in samples:
                self.select(sample)
                for mode in (False, True):
                    self.train(mode)
                    self._check(example_inputs, sample)
        finally:
            self.train(training)
            self._selected = selected
            with torch.no_grad():
                for name, buffer in self.store.named_buffers():
                    buffer.copy_(buffers[name])

    def _check(self, inputs: tuple[Any, ...], sample: Mapping[str, Answer]) -> None:
        alone = self.extract(sample)
        outputs = []
        for model in (alone, self):
            with seeded(0), torch.no_grad():
                outputs.append([leaf for leaf in tree_leaves(model(*inputs)) if isinstance(leaf, Tensor)])
        for expected, found in zip(*outputs, strict=True):
            if not torch.allclose(expected, found, rtol=1e-5, atol=1e-5):
                raise NasValueError(
                    explain(
                        f"the path computes something else than its architecture, off by up to "
                        f"{float((expected - found).abs().max()):.2g}",
                        got=dict(sample),
                        where=f"labels {', '.join(map(repr, sample))}",
                        mend="keep what a forward pass computes in parameters and buffers, and ask no choices in it",
                    )
                )

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
            return Subnet(built.sample, built.model, parts)

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
        """The views of its tensors are of old ones."""
        self._generation += 1

    def __getstate__(self) -> dict[str, Any]:
        """Without what can be built again."""
        state = self.__dict__.copy()
        state.update(_cache=OrderedDict(), _building=None, _worker=None, _selected=self.sample)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch's
        self._building = threading.Lock()
        sample, self._selected = self._selected, None
        if sample is not None:
            self.select(sample)  # type: ignore[arg-type]  # the sample took the place of the subnet


def _renew(module: nn.Module, _: Any) -> None:
    assert isinstance(module, PathSupernet)
    module.moved()


def _key(sample: Mapping[str, Answer]) -> Hashable:
    if not isinstance(sample, Mapping):
        raise NasTypeError(explain("a sample must be a dict label -> answer", got=sample))
    return frozenset((label, as_key(answer)) for label, answer in sample.items())
