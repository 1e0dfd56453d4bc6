"""Relaxed supernets: mixtures of candidates, weighted by architecture parameters."""

from nas.oneshot.relaxed.architecture import Architecture, Mixing, Rule, softmax
from nas.oneshot.relaxed.curvature import CurvatureStop, OnceDifferentiable, differentiating_twice, largest_eigenvalue
from nas.oneshot.relaxed.mixers import GumbelMixer, Mixer, Moment, Phase, SoftmaxMixer, SumMixer, TwoPathMixer
from nas.oneshot.relaxed.mixtures import MixedDepth, MixedInput, MixedLayer, Terms, check_alike
from nas.oneshot.relaxed.parametrisations import Concentrations, Logits, Parametrisation, Simplex
from nas.oneshot.relaxed.penalty import CostPenalty, check_penalty
from nas.oneshot.relaxed.recomputation import RemembersCheckpoints, recomputing_as_before
from nas.oneshot.relaxed.sums import Plan, weighted_sum, weighted_sums
from nas.oneshot.relaxed.supernet import RelaxedSupernet

__all__ = [
    "Architecture",
    "Concentrations",
    "CostPenalty",
    "CurvatureStop",
    "GumbelMixer",
    "Logits",
    "MixedDepth",
    "MixedInput",
    "MixedLayer",
    "Mixer",
    "Mixing",
    "Moment",
    "OnceDifferentiable",
    "Parametrisation",
    "Phase",
    "Plan",
    "RelaxedSupernet",
    "RemembersCheckpoints",
    "Rule",
    "Simplex",
    "SoftmaxMixer",
    "SumMixer",
    "Terms",
    "TwoPathMixer",
    "check_alike",
    "check_penalty",
    "differentiating_twice",
    "largest_eigenvalue",
    "recomputing_as_before",
    "softmax",
    "weighted_sum",
    "weighted_sums",
]
