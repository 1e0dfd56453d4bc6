"""Strategies: what to try next, by ask and tell over a search space."""

from nas.strategies.grid import GridSearch
from nas.strategies.random import Random

__all__ = ["GridSearch", "Random"]
