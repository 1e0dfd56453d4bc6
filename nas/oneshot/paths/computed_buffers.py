"""Buffers that a constructor computes from its answers: they cannot be parts of one that all architectures share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from nas._compat.torch_internals import own_buffers
from nas.domains import Answer, sample_key
from nas.errors import NasValueError, explain
from nas.oneshot.paths.extremes import has_values
from nas.oneshot.paths.inventory import Inventory, changing_labels
from nas.oneshot.paths.naming import OnePath, answers_from
from nas.oneshot.paths.slicing import indexed
from nas.oneshot.paths.store import Store
from nas.random_state import seeded

_MOST = 8
"""Architectures that are looked at."""


def refuse_computed_buffers(inventory: Inventory, store: Store) -> None:
    """Compares the buffers of a few architectures built alone, with numbers, with the parts of the store they get.

    Those that hold random numbers are as good as any others, like parameters.

    Raises:
        NasValueError: one is not what its architecture computes, as a table of positions whose values depend on a
            chosen width.
    """
    if not has_values(inventory.space.search_space):
        return
    names = [name for name in inventory.entries if not isinstance(store.tensor(name), nn.Parameter)]
    others = [entry.other for entry in (inventory.entries[name] for name in names) if entry.other is not None]
    samples = [*others, *(probe.sample for probe in inventory.probes)] if names else []
    different = {sample_key(sample): sample for sample in samples}
    for sample in [*different.values()][:_MOST]:
        for name in _computed(inventory, store, sample):
            entry = inventory.entries[name]
            labels = changing_labels(entry.sample, sample, lambda other: name in _computed(inventory, store, other))  # noqa: B023
            raise computed_buffer(name, sample, labels)


def computed_buffer(name: str, sample: Mapping[str, Answer], labels: Iterable[str]) -> NasValueError:
    """The refusal of a buffer."""
    return NasValueError(
        explain(
            f"the buffer {name!r} is computed from the answers, so it is no part of one that all architectures share",
            got=dict(sample),
            where=f"labels {', '.join(map(repr, labels))}",
            mend="compute it in forward, or choose between whole layers with a LayerChoice",
        )
    )


def _computed(inventory: Inventory, store: Store, sample: Mapping[str, Answer]) -> list[str]:
    """The buffers of an architecture that are not as in the store, and not by chance."""
    try:
        built = inventory.build(lambda: OnePath(answers_from(sample)))
    except Exception:
        return []  # what candidates were tried with side by side need not be an architecture
    parts = [(name, place, inventory.region(name, place, built.layouts)) for name, place in built.places]
    found = []
    first: dict[tuple[str, str], Tensor] = {}
    for name, place, region in parts:
        if isinstance(place.tensor, nn.Parameter):
            continue
        first = first or _buffers(inventory, sample, seed=0)
        whole, own = store.tensor(name), first[place.path, place.local]
        if not equal_tensors(own, whole if region is None else indexed(whole, region)):
            again = _buffers(inventory, sample, seed=1)[place.path, place.local]
            if equal_tensors(own, again):
                found.append(name)
    return found


def _buffers(inventory: Inventory, sample: Mapping[str, Answer], *, seed: int) -> dict[tuple[str, str], Tensor]:
    with seeded(seed):
        model = inventory.space.construct(OnePath(answers_from(sample)), "cpu")
    modules = model.named_modules(remove_duplicate=False)
    return {
        (path, local): tensor
        for path, module in modules
        for local, tensor in own_buffers(module).items()
        if tensor is not None
    }


def equal_tensors(one: Tensor, other: Tensor) -> bool:
    """Whether all numbers are the same, those that are none included."""
    return one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())
