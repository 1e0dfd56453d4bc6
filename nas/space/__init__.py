"""The program with choices and what it spans: domains, choices, the search tree, samples, builds."""

from nas.space.cell import Cell, CellModule, Sum
from nas.space.choice_tree import Branch, Choice, count
from nas.space.constraints import Constraint, Where, as_constraint
from nas.space.domains import Answer, Choose, Domain, as_key
from nas.space.listed_domains import Categorical, Subset
from nas.space.markers import Skip, Zero, is_skip, is_zero
from nas.space.mutables import Candidate, ChosenInputs, ChosenInt, InputChoice, LayerChoice, Repeat, ValueChoice
from nas.space.mutators import Mutator, replace_module
from nas.space.numeric_domains import Integer, Real
from nas.space.questions import Answering, Handler, Question, Select, chosen_items, label_scope
from nas.space.samples import Sample, dumps_sample, load_sample, loads_sample, sample_key, save_sample
from nas.space.search_space import SearchSpace
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
    "Choose",
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
