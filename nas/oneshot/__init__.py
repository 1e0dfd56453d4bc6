"""One-shot search: one supernet is trained, and its subnets are judged by the weights that they share."""

from typing import TYPE_CHECKING

from nas.late import late
from nas.oneshot.relaxed import weighted_sum

if TYPE_CHECKING:
    from nas.oneshot.darts import DARTS, PCDARTS, GumbelDARTS, ProxylessNAS
    from nas.oneshot.enas import ENAS
    from nas.oneshot.paths import PathSupernet, register_slicer
    from nas.oneshot.random_paths import RandomOneShot
    from nas.oneshot.relaxed import CostPenalty, CurvatureStop, RelaxedSupernet
    from nas.oneshot.speed import Speed, optimise

_LATE = {
    "DARTS": "nas.oneshot.darts",
    "ENAS": "nas.oneshot.enas",
    "PCDARTS": "nas.oneshot.darts",
    "CostPenalty": "nas.oneshot.relaxed.penalty",
    "CurvatureStop": "nas.oneshot.relaxed.curvature",
    "GumbelDARTS": "nas.oneshot.darts",
    "PathSupernet": "nas.oneshot.paths.supernet",
    "ProxylessNAS": "nas.oneshot.darts",
    "RandomOneShot": "nas.oneshot.random_paths",
    "RelaxedSupernet": "nas.oneshot.relaxed.supernet",
    "Speed": "nas.oneshot.speed.speed",
    "optimise": "nas.oneshot.speed.rewriting",
    "register_slicer": "nas.oneshot.paths.slicing",
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

__getattr__ = late(__name__, _LATE)
