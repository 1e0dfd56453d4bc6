"""Pickles and torch files of strangers: plain data of them are read, nothing is executed, and sizes are checked."""

from nas.reading.machine import Refused
from nas.reading.pickle_files import pickled_data
from nas.reading.torch_files import tensors_in, torch_data, torch_notes, torch_tensors

__all__ = ["Refused", "pickled_data", "tensors_in", "torch_data", "torch_notes", "torch_tensors"]
