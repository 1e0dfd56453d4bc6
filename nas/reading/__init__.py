"""Pickles and torch files of strangers: plain data of them are read, nothing is executed, and sizes are checked."""

from nas.reading.machine import Refused
from nas.reading.pickle_files import pickled_data
from nas.reading.torch_files import check_torch_file, torch_data, torch_tensors

__all__ = ["Refused", "check_torch_file", "pickled_data", "torch_data", "torch_tensors"]
