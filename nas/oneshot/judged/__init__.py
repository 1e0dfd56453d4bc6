"""The forward passes of models that are judged: recorded where a replay is sure to be the same."""

from nas.oneshot.judged.passes import JudgedPasses, recorder_of

__all__ = ["JudgedPasses", "recorder_of"]
