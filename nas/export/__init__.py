"""Getting architectures out: as an ONNX file, and as a small Python file."""

from nas.export.code import to_code
from nas.export.onnx_file import read_metadata, to_onnx
from nas.export.onnx_report import OnnxReport

__all__ = [
    "OnnxReport",
    "read_metadata",
    "to_code",
    "to_onnx",
]
