"""What choices may answer: domains of every kind, and samples, which are answers by label."""

from nas.domains.domain import Answer, Choose, Domain, as_key
from nas.domains.either import Either
from nas.domains.listed import Categorical, Subset
from nas.domains.numeric import Integer, Real
from nas.domains.samples import Sample, check_sample, dumps_sample, load_sample, loads_sample, sample_key, save_sample

__all__ = [
    "Answer",
    "Categorical",
    "Choose",
    "Domain",
    "Either",
    "Integer",
    "Real",
    "Sample",
    "Subset",
    "as_key",
    "check_sample",
    "dumps_sample",
    "load_sample",
    "loads_sample",
    "sample_key",
    "save_sample",
]
