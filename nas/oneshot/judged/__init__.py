"""The forward passes of models that are judged: recorded where a replay is sure to be the same."""

from nas.oneshot.judged.passes import JudgedPasses, recorder_of
from nas.oneshot.judged.watching import is_plain

__all__ = ["JudgedPasses", "is_plain", "recorder_of"]
