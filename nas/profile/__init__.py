"""What an architecture costs: parameters, multiply-adds, activations, memory, latency; of one model or of a space."""

from nas.example_inputs import Example, meta_example, real_example, tensors_of
from nas.profile.costs import Bounds, Cost, CostConstraint
from nas.profile.dry_run import Lookalike, ModuleRun, TensorSpec
from nas.profile.latency_prediction import LatencyTable, PredictionError, latency_table
from nas.profile.measured_latency import Backend, Latency, latency
from nas.profile.memory import PeakMemory
from nas.profile.model_profile import ModelProfile, ModuleProfile
from nas.profile.own_cost import ModuleCost, cost
from nas.profile.passes import ForwardPass, Subject, build_on_meta, meta_copy, run_first, sample_subject, subject_of
from nas.profile.profiling import profile
from nas.profile.space_profile import SpaceProfile

__all__ = [
    "Backend",
    "Bounds",
    "Cost",
    "CostConstraint",
    "Example",
    "ForwardPass",
    "Latency",
    "LatencyTable",
    "Lookalike",
    "ModelProfile",
    "ModuleCost",
    "ModuleProfile",
    "ModuleRun",
    "PeakMemory",
    "PredictionError",
    "SpaceProfile",
    "Subject",
    "TensorSpec",
    "build_on_meta",
    "cost",
    "latency",
    "latency_table",
    "meta_copy",
    "meta_example",
    "profile",
    "real_example",
    "run_first",
    "sample_subject",
    "subject_of",
    "tensors_of",
]
