"""Getting architectures out: as an ONNX file, and as a small Python file."""

from nas.export.code import to_code
from nas.export.lazy_layers import fill_lazy_layers
from nas.export.onnx_file import read_metadata, to_onnx
from nas.export.onnx_report import OnnxReport

__all__ = [
    "OnnxReport",
    "fill_lazy_layers",
    "read_metadata",
    "to_code",
    "to_onnx",
]
