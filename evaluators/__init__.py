"""Evaluators: what a sample is worth."""

from nas.evaluators.functional import FunctionalEvaluator
from nas.evaluators.surrogate import Surrogate
from nas.evaluators.tabular import Run, SimulatedBudget, SimulatedEvaluator, Tabular

__all__ = ["FunctionalEvaluator", "Run", "SimulatedBudget", "SimulatedEvaluator", "Surrogate", "Tabular"]
