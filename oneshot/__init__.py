"""One-shot search: one supernet is trained, and its subnets are judged by the weights that they share."""

from importlib import import_module
from typing import TYPE_CHECKING

from nas.oneshot.operator import weighted_sum

if TYPE_CHECKING:
    from nas.oneshot.curvature import CurvatureStop
    from nas.oneshot.darts import DARTS, PCDARTS, GumbelDARTS, ProxylessNAS
    from nas.oneshot.enas import ENAS
    from nas.oneshot.paths import PathSupernet
    from nas.oneshot.penalty import CostPenalty
    from nas.oneshot.random_paths import RandomOneShot
    from nas.oneshot.relax import RelaxedSupernet
    from nas.oneshot.rewriting import optimise
    from nas.oneshot.slicing import register_slicer
    from nas.oneshot.speed import Speed

_LATE = {
    "DARTS": "nas.oneshot.darts",
    "ENAS": "nas.oneshot.enas",
    "PCDARTS": "nas.oneshot.darts",
    "CostPenalty": "nas.oneshot.penalty",
    "CurvatureStop": "nas.oneshot.curvature",
    "GumbelDARTS": "nas.oneshot.darts",
    "PathSupernet": "nas.oneshot.paths",
    "ProxylessNAS": "nas.oneshot.darts",
    "RandomOneShot": "nas.oneshot.random_paths",
    "RelaxedSupernet": "nas.oneshot.relax",
    "Speed": "nas.oneshot.speed",
    "optimise": "nas.oneshot.rewriting",
    "register_slicer": "nas.oneshot.slicing",
}

__all__ = [
    "DARTS",
    "ENAS",
    "PCDARTS",
    "CostPenalty",
    "CurvatureStop",
    "GumbelDARTS",
    "PathSupernet",
    "ProxylessNAS",
    "RandomOneShot",
    "RelaxedSupernet",
    "Speed",
    "optimise",
    "register_slicer",
    "weighted_sum",
]


def __getattr__(name: str) -> object:
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
