"""Getting architectures out: as an ONNX file, and as a small Python file."""

from nas.code import to_code
from nas.onnx_file import OnnxReport, read_metadata, to_onnx

__all__ = ["OnnxReport", "read_metadata", "to_code", "to_onnx"]
