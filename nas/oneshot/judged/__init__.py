"""The passes of models that are judged: recorded where a replay is sure to be the same, several models side by side."""

from nas.oneshot.judged.lanes import AT_ONCE, Aside, Lane, lanes_of
from nas.oneshot.judged.passes import FEWEST, JudgedPasses, recorder_of

__all__ = ["AT_ONCE", "FEWEST", "Aside", "JudgedPasses", "Lane", "lanes_of", "recorder_of"]
