"""Rewriting relaxed supernets so that they compute the same numbers faster."""

from nas.oneshot.speed.recorded import CudaRecorder, RecordedForward, Recorder
from nas.oneshot.speed.report import Report
from nas.oneshot.speed.rewriting import optimise
from nas.oneshot.speed.speed import Speed
from nas.oneshot.speed.whole_passes import compile_whole, uncompiled

__all__ = [
    "CudaRecorder",
    "RecordedForward",
    "Recorder",
    "Report",
    "Speed",
    "compile_whole",
    "optimise",
    "uncompiled",
]
