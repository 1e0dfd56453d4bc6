"""Strategies: what to try next, by ask and tell over a search space."""

from nas.strategies.anneal import Anneal
from nas.strategies.bananas import BANANAS
from nas.strategies.chain import Chain
from nas.strategies.encoding import PathEncoding
from nas.strategies.evolution import RegularizedEvolution
from nas.strategies.gaussian_process import GaussianProcess
from nas.strategies.grid import GridSearch
from nas.strategies.local_search import LocalSearch
from nas.strategies.policy import Policy
from nas.strategies.ppo import PPO
from nas.strategies.random import Random
from nas.strategies.sampler import OptunaStrategy
from nas.strategies.tpe import TPE

__all__ = [
    "BANANAS",
    "PPO",
    "TPE",
    "Anneal",
    "Chain",
    "GaussianProcess",
    "GridSearch",
    "LocalSearch",
    "OptunaStrategy",
    "PathEncoding",
    "Policy",
    "Random",
    "RegularizedEvolution",
]
