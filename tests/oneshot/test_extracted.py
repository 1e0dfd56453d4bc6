"""Subnets that were taken out: built once, and as they were each time."""

from typing import Any

from torch import nn

from nas.oneshot.extracted import Extracted


def test_each_subnet_is_built_once_and_is_as_it_was() -> None:
    built: list[Any] = []

    def extract(sample: Any) -> nn.Module:
        built.append(sample)
        return nn.BatchNorm1d(2)

    subnets = Extracted(extract)
    first, _ = subnets({"kind": "a"})
    first.running_mean.fill_(9)  # type: ignore[operator]  # a tensor
    subnets({"kind": "b"})
    again, _ = subnets({"kind": "a"})
    assert again is first
    assert again.running_mean.tolist() == [0, 0]  # type: ignore[operator]
    assert built == [{"kind": "a"}, {"kind": "b"}]


def test_the_latest_are_kept_within_a_limit() -> None:
    built: list[Any] = []

    def extract(sample: Any) -> nn.Module:
        built.append(sample)
        return nn.Linear(10, 10, bias=False)

    subnets = Extracted(extract, limit=2 * 800)
    for kind in "abcacba":
        subnets({"kind": kind})
    assert "".join(str(sample["kind"]) for sample in built) == "abcaba"
