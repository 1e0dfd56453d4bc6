"""Rewriting relaxed supernets so that they compute the same numbers faster."""

from nas.oneshot.speed.recorded import RecordedForward
from nas.oneshot.speed.recorders import CudaRecorder, Recorder, for_each
from nas.oneshot.speed.rewriting import optimise
from nas.oneshot.speed.speed import Report, Speed
from nas.oneshot.speed.updates import Clipping, RecordedClipping, record_updates
from nas.oneshot.speed.watching import State, Watch, hides_tensors, is_plain, look_of
from nas.oneshot.speed.whole_passes import compile_whole, uncompiled

__all__ = [
    "Clipping",
    "CudaRecorder",
    "RecordedClipping",
    "RecordedForward",
    "Recorder",
    "Report",
    "Speed",
    "State",
    "Watch",
    "compile_whole",
    "for_each",
    "hides_tensors",
    "is_plain",
    "look_of",
    "optimise",
    "record_updates",
    "uncompiled",
]
