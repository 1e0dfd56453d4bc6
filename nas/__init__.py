"""Neural architecture search for PyTorch: write choices into a module, search, get ordinary modules back."""

from nas.choices import label_scope
from nas.domains import Categorical, Domain, Integer, Real, Subset
from nas.errors import (
    ExperimentError,
    MissingDependency,
    NasError,
    NasTypeError,
    NasValueError,
    SearchSpaceExhausted,
    TrialPruned,
)
from nas.mutables import ChosenInputs, InputChoice, LayerChoice, Repeat, ValueChoice
from nas.mutators import Mutator, replace_module
from nas.samples import Sample, load_sample, save_sample
from nas.search_space import SearchSpace
from nas.space import ModelSpace, model_space
