"""Smaller weights: pruned by magnitude, rounded to half precision, or quantised to 8 bits."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

SMALL = 64
"""Tensors with fewer entries, such as small biases, keep their precision, since rounding saves nothing."""


def prune(module: nn.Module, share: float) -> None:
    """Set the given fraction of each matrix's weights to 0 in place, smallest magnitudes first (Han et al. 2015).

    The file keeps its size, but compresses well.
    """
    with torch.no_grad():
        for parameter in module.parameters():
            few = int(share * parameter.numel())
            if parameter.ndim >= 2 and few:
                parameter.view(-1)[parameter.abs().flatten().topk(few, largest=False).indices] = 0.0


def without_traces(model: Any) -> Any:
    """Remove the exporter's source-code metadata, which is half of a small file and contains local paths."""
    graph = model.graph
    del model.metadata_props[:], graph.metadata_props[:]
    model.doc_string = graph.doc_string = ""
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    return model


def to_half(model: Any) -> Any:
    """Round large float32 weights to half precision. The program casts them back, and computes as before."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and numpy_helper.to_array(tensor).size >= SMALL:
            name, values = tensor.name, numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(values.astype("float16"), f"{name}_half"))
            casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def to_int8(model: Any) -> Any:
    """Quantise the weights of matrix products to 8 bits, with one scale per output.

    Inputs of the products are quantised at run time, with one range for all rows of a call (dynamic quantisation), so
    rows are independent only if they are given one by one.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, _quiet():
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        onnx.save(model, before)
        quantize_dynamic(before, after, weight_type=QuantType.QInt8, per_channel=True)
        return onnx.load(after)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the root logger's advice to preprocess models of other exporters first."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
