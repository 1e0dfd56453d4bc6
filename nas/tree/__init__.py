"""The search tree: choices and what their answers make active, how many samples there are, constraints, drawing."""

from nas.tree.choices import Answers, Branch, Choice, Kind, Taking, among, both, disjoint
from nas.tree.constraints import Constraint, Where, as_constraint
from nas.tree.counting import count
from nas.tree.drawing import draw_html, draw_text, size_text
from nas.tree.search_space import SearchSpace, unknown_label

__all__ = [
    "Answers",
    "Branch",
    "Choice",
    "Constraint",
    "Kind",
    "SearchSpace",
    "Taking",
    "Where",
    "among",
    "as_constraint",
    "both",
    "count",
    "disjoint",
    "draw_html",
    "draw_text",
    "size_text",
    "unknown_label",
]
