"""Neural architecture search for PyTorch: write choices into a module, search, get ordinary modules back."""

from nas import export, profile
from nas.cell import Cell
from nas.choices import label_scope
from nas.constraints import Constraint
from nas.domains import Answer, Categorical, Domain, Subset
from nas.early_stopping import EarlyStopping, Hyperband, MedianStop, Patience, SuccessiveHalving
from nas.errors import (
    ExperimentError,
    MissingDependency,
    NasError,
    NasTypeError,
    NasValueError,
    SearchSpaceExhausted,
    TrialPruned,
)
from nas.evaluation import Evaluator, Job, report, trial_directory
from nas.experiment import Experiment
from nas.mutables import ChosenInputs, InputChoice, LayerChoice, Repeat, ValueChoice
from nas.mutators import Mutator, replace_module
from nas.numeric_domains import Integer, Real
from nas.objectives import Objectives
from nas.pictures import draw
from nas.results import Results
from nas.samples import Sample, load_sample, save_sample
from nas.search_space import SearchSpace
from nas.space import ModelSpace, model_space
from nas.strategy import Strategy, Task
from nas.tree import Choice
from nas.trial import Trial, TrialState

__all__ = [
    "Answer",
    "Categorical",
    "Cell",
    "Choice",
    "ChosenInputs",
    "Constraint",
    "Domain",
    "EarlyStopping",
    "Evaluator",
    "Experiment",
    "ExperimentError",
    "Hyperband",
    "InputChoice",
    "Integer",
    "Job",
    "LayerChoice",
    "MedianStop",
    "MissingDependency",
    "ModelSpace",
    "Mutator",
    "NasError",
    "NasTypeError",
    "NasValueError",
    "Objectives",
    "Patience",
    "Real",
    "Repeat",
    "Results",
    "Sample",
    "SearchSpace",
    "SearchSpaceExhausted",
    "Strategy",
    "Subset",
    "SuccessiveHalving",
    "Task",
    "Trial",
    "TrialPruned",
    "TrialState",
    "ValueChoice",
    "draw",
    "export",
    "label_scope",
    "load_sample",
    "model_space",
    "profile",
    "replace_module",
    "report",
    "save_sample",
    "trial_directory",
]
