"""Evaluators: what a sample is worth."""

from nas.evaluators.functional import FunctionalEvaluator

__all__ = ["FunctionalEvaluator"]
