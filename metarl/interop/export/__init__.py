"""Export of trained agents for small devices, as ONNX files that need neither torch nor metarl."""

from metarl.interop.export.checking import Check, check
from metarl.interop.export.playing import OnnxAgent
from metarl.interop.export.writing import WEIGHTS, export

__all__ = ["WEIGHTS", "Check", "OnnxAgent", "check", "export"]
