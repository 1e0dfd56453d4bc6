"""Convolutions of each channel by itself: their gradients on a CPU, and many of them as one on a device."""

from nas.oneshot.speed.depthwise.on_cpu import Pair, depthwise, is_average, is_depthwise, run_average, run_depthwise
from nas.oneshot.speed.depthwise.together import Shape, Window, depthwise_together, repeat_channels

__all__ = [
    "Pair",
    "Shape",
    "Window",
    "depthwise",
    "depthwise_together",
    "is_average",
    "is_depthwise",
    "repeat_channels",
    "run_average",
    "run_depthwise",
]
