"""Training supernets: the LightningModule, the learners, checkpoints, batches, several devices."""

from nas.oneshot.training.architecture_steps import ArchitectureSteps, ExtraLoss, MakeOptimizer
from nas.oneshot.training.distributed import gather
from nas.oneshot.training.learner import Judge, Learner, Search
from nas.oneshot.training.path_learner import Chooser, Distillation, PathLearner, soft_cross_entropy
from nas.oneshot.training.random_streams import RandomStream
from nas.oneshot.training.relaxed_learner import RelaxedLearner, frozen
from nas.oneshot.training.steering import Steering
from nas.oneshot.training.training import Training

__all__ = [
    "ArchitectureSteps",
    "Chooser",
    "Distillation",
    "ExtraLoss",
    "Judge",
    "Learner",
    "MakeOptimizer",
    "PathLearner",
    "RandomStream",
    "RelaxedLearner",
    "Search",
    "Steering",
    "Training",
    "frozen",
    "gather",
    "soft_cross_entropy",
]
