"""The passes of models that are judged: recorded where a replay is sure to be the same, several models side by side."""

from nas.oneshot.judged.lanes import AT_ONCE, Aside, Lane, lanes_of
from nas.oneshot.judged.passes import FEWEST, JudgedPasses, recorder_of
from nas.oneshot.judged.under_way import Begun, Place

__all__ = ["AT_ONCE", "FEWEST", "Aside", "Begun", "JudgedPasses", "Lane", "Place", "lanes_of", "recorder_of"]
