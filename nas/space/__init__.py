"""The program with choices and what it spans: choices and who answers them, the search tree, builds."""

from nas.space.cell import Cell, CellModule, Sum
from nas.space.function_space import search_space
from nas.space.markers import Skip, Zero, is_skip, is_zero
from nas.space.mutables import Candidate, ChosenInputs, ChosenInt, InputChoice, LayerChoice, Repeat, ValueChoice
from nas.space.program import Mutator, Program, as_mutators, model_space, replace_module
from nas.space.questions import Answering, Handler, Question, Select, chosen_items, label_scope
from nas.space.space import ARCHITECTURE, ModelSpace
from nas.tree import Branch, Choice, Constraint, SearchSpace, Where, as_constraint, count

__all__ = [
    "ARCHITECTURE",
    "Answering",
    "Branch",
    "Candidate",
    "Cell",
    "CellModule",
    "Choice",
    "ChosenInputs",
    "ChosenInt",
    "Constraint",
    "Handler",
    "InputChoice",
    "LayerChoice",
    "ModelSpace",
    "Mutator",
    "Program",
    "Question",
    "Repeat",
    "SearchSpace",
    "Select",
    "Skip",
    "Sum",
    "ValueChoice",
    "Where",
    "Zero",
    "as_constraint",
    "as_mutators",
    "chosen_items",
    "count",
    "is_skip",
    "is_zero",
    "label_scope",
    "model_space",
    "replace_module",
    "search_space",
]
