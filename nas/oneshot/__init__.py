"""One-shot search: one supernet is trained, and its subnets are judged by the weights that they share."""

from typing import TYPE_CHECKING

from nas.late import late
from nas.oneshot.relaxed import weighted_sum

if TYPE_CHECKING:
    from nas.example_inputs import Inputs
    from nas.oneshot.alarms import Compared
    from nas.oneshot.darts import DARTS, PCDARTS, ArchitectureSettings, GumbelDARTS, ProxylessNAS
    from nas.oneshot.enas import ENAS
    from nas.oneshot.paths import PathSupernet, register_slicer
    from nas.oneshot.random_paths import RandomOneShot
    from nas.oneshot.relaxed import (
        Architecture,
        Concentrations,
        CostPenalty,
        CurvatureStop,
        GumbelMixer,
        Logits,
        Mixer,
        Moment,
        Parametrisation,
        Phase,
        RelaxedSupernet,
        Rule,
        Simplex,
        SoftmaxMixer,
        SumMixer,
        TwoPathMixer,
        largest_eigenvalue,
        softmax,
    )
    from nas.oneshot.speed import Report, Speed, compile_whole, optimise
    from nas.oneshot.strategy import SupernetSettings, SupernetStrategy
    from nas.oneshot.training import (
        ArchitectureSteps,
        Chooser,
        Distillation,
        Judge,
        Learner,
        PathLearner,
        RandomStream,
        RelaxedLearner,
        Search,
        frozen,
        soft_cross_entropy,
    )
    from nas.oneshot.trust import TrustReport
    from nas.protocols import OneShotStrategy

_LATE = {
    "Architecture": "nas.oneshot.relaxed.architecture",
    "ArchitectureSettings": "nas.oneshot.darts",
    "ArchitectureSteps": "nas.oneshot.training.architecture_steps",
    "Chooser": "nas.oneshot.training.path_learner",
    "Compared": "nas.oneshot.alarms",
    "Concentrations": "nas.oneshot.relaxed.parametrisations",
    "CostPenalty": "nas.oneshot.relaxed.penalty",
    "CurvatureStop": "nas.oneshot.relaxed.curvature",
    "DARTS": "nas.oneshot.darts",
    "Distillation": "nas.oneshot.training.path_learner",
    "ENAS": "nas.oneshot.enas",
    "GumbelDARTS": "nas.oneshot.darts",
    "GumbelMixer": "nas.oneshot.relaxed.mixers",
    "Inputs": "nas.example_inputs",
    "Judge": "nas.oneshot.training.learner",
    "Learner": "nas.oneshot.training.learner",
    "Logits": "nas.oneshot.relaxed.parametrisations",
    "Mixer": "nas.oneshot.relaxed.mixers",
    "Moment": "nas.oneshot.relaxed.mixers",
    "OneShotStrategy": "nas.protocols",
    "PCDARTS": "nas.oneshot.darts",
    "Parametrisation": "nas.oneshot.relaxed.parametrisations",
    "PathLearner": "nas.oneshot.training.path_learner",
    "PathSupernet": "nas.oneshot.paths.supernet",
    "Phase": "nas.oneshot.relaxed.mixers",
    "ProxylessNAS": "nas.oneshot.darts",
    "RandomOneShot": "nas.oneshot.random_paths",
    "RandomStream": "nas.oneshot.training.random_streams",
    "RelaxedLearner": "nas.oneshot.training.relaxed_learner",
    "RelaxedSupernet": "nas.oneshot.relaxed.supernet",
    "Report": "nas.oneshot.speed.speed",
    "Rule": "nas.oneshot.relaxed.architecture",
    "Search": "nas.oneshot.training.learner",
    "Simplex": "nas.oneshot.relaxed.parametrisations",
    "SoftmaxMixer": "nas.oneshot.relaxed.mixers",
    "SumMixer": "nas.oneshot.relaxed.mixers",
    "Speed": "nas.oneshot.speed.speed",
    "SupernetSettings": "nas.oneshot.strategy",
    "SupernetStrategy": "nas.oneshot.strategy",
    "TrustReport": "nas.oneshot.trust",
    "TwoPathMixer": "nas.oneshot.relaxed.mixers",
    "compile_whole": "nas.oneshot.speed.whole_passes",
    "frozen": "nas.oneshot.training.relaxed_learner",
    "largest_eigenvalue": "nas.oneshot.relaxed.curvature",
    "optimise": "nas.oneshot.speed.rewriting",
    "register_slicer": "nas.oneshot.paths.slicing",
    "soft_cross_entropy": "nas.oneshot.training.path_learner",
    "softmax": "nas.oneshot.relaxed.architecture",
}

__all__ = [
    "DARTS",
    "ENAS",
    "PCDARTS",
    "Architecture",
    "ArchitectureSettings",
    "ArchitectureSteps",
    "Chooser",
    "Compared",
    "Concentrations",
    "CostPenalty",
    "CurvatureStop",
    "Distillation",
    "GumbelDARTS",
    "GumbelMixer",
    "Inputs",
    "Judge",
    "Learner",
    "Logits",
    "Mixer",
    "Moment",
    "OneShotStrategy",
    "Parametrisation",
    "PathLearner",
    "PathSupernet",
    "Phase",
    "ProxylessNAS",
    "RandomOneShot",
    "RandomStream",
    "RelaxedLearner",
    "RelaxedSupernet",
    "Report",
    "Rule",
    "Search",
    "Simplex",
    "SoftmaxMixer",
    "Speed",
    "SumMixer",
    "SupernetSettings",
    "SupernetStrategy",
    "TrustReport",
    "TwoPathMixer",
    "compile_whole",
    "frozen",
    "largest_eigenvalue",
    "optimise",
    "register_slicer",
    "soft_cross_entropy",
    "softmax",
    "weighted_sum",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = late(__name__, _LATE)
