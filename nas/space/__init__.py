"""The program with choices and what it spans: domains, choices, the search tree, samples, builds."""

from nas.space.cell import Cell, CellModule, Sum
from nas.space.choice_tree import Branch, Choice, as_key
from nas.space.constraints import Constraint, Where, as_constraint
from nas.space.counting import count
from nas.space.domains import Answer, Categorical, Domain, Subset
from nas.space.markers import Skip, Zero, is_skip, is_zero
from nas.space.mutables import Candidate, ChosenInputs, ChosenInt, InputChoice, LayerChoice, Repeat, ValueChoice
from nas.space.mutators import Mutator, replace_module
from nas.space.numeric_domains import Integer, Real
from nas.space.questions import Answering, Handler, Question, Select, chosen_items, label_scope
from nas.space.samples import Sample, dumps_sample, load_sample, loads_sample, sample_key, save_sample
from nas.space.search_space import SearchSpace, as_rng
from nas.space.space import ARCHITECTURE, ModelSpace, model_space

__all__ = [
    "ARCHITECTURE",
    "Answer",
    "Answering",
    "Branch",
    "Candidate",
    "Categorical",
    "Cell",
    "CellModule",
    "Choice",
    "ChosenInputs",
    "ChosenInt",
    "Constraint",
    "Domain",
    "Handler",
    "InputChoice",
    "Integer",
    "LayerChoice",
    "ModelSpace",
    "Mutator",
    "Question",
    "Real",
    "Repeat",
    "Sample",
    "SearchSpace",
    "Select",
    "Skip",
    "Subset",
    "Sum",
    "ValueChoice",
    "Where",
    "Zero",
    "as_constraint",
    "as_key",
    "as_rng",
    "chosen_items",
    "count",
    "dumps_sample",
    "is_skip",
    "is_zero",
    "label_scope",
    "load_sample",
    "loads_sample",
    "model_space",
    "replace_module",
    "sample_key",
    "save_sample",
]
