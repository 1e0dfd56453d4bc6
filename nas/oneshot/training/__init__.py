"""Training supernets: the LightningModule, the learners, checkpoints, batches, several devices."""

from nas.oneshot.training.distributed import gather
from nas.oneshot.training.learner import Judge, Learner, Search
from nas.oneshot.training.measures import Logged, measure, recalibrate, train_step
from nas.oneshot.training.path_learner import Chooser, Distillation, PathLearner, soft_cross_entropy
from nas.oneshot.training.relaxed_learner import ArchitectureSteps, RelaxedLearner
from nas.oneshot.training.search_module import SearchModule
from nas.oneshot.training.training import Training

__all__ = [
    "ArchitectureSteps",
    "Chooser",
    "Distillation",
    "Judge",
    "Learner",
    "Logged",
    "PathLearner",
    "RelaxedLearner",
    "Search",
    "SearchModule",
    "Training",
    "gather",
    "measure",
    "recalibrate",
    "soft_cross_entropy",
    "train_step",
]
