"""(a) What there is, and what the device does at most."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import subprocess
from functools import partial
from typing import Any

import torch

from benchmarks import floor, run
from benchmarks.gpu.items import Item, Result
from benchmarks.gpu.report import Report, failure
from benchmarks.gpu.settings import Settings
from metarl.evaluation.provenance import versions

PRODUCTS = {
    "fp32": ("highest", torch.float32),
    "tf32": ("high", torch.float32),
    "bf16": ("highest", torch.bfloat16),
}
"""Matrix products: torch's precision of those on float32, and the type of their numbers."""


def items(settings: Settings, report: Report) -> list[Item]:
    """The versions, and the ceilings one by one."""
    return [
        Item("versions", partial(about, settings)),
        Item("copy", partial(copy, settings)),
        *(Item(name, partial(product, settings, name)) for name in PRODUCTS),
    ]


def about(settings: Settings, seconds: float) -> Result:
    """Versions, the device's name for itself, and its properties."""
    found: dict[str, Any] = versions() | {"numpy": _version("numpy"), "jax": _version("jax"), "cores": os.cpu_count()}
    found |= {"torch": torch.__version__, "cuda": torch.version.cuda, "cpu": run.cpu_model(), "driver": None}
    found["device"] = run.device_name(settings.device)
    if settings.cuda:
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "cudnn": torch.backends.cudnn.version(),
            "capability": f"{properties.major}.{properties.minor}",
            "memory": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
        }
        found["driver"] = _driver()
    return found


def product(settings: Settings, name: str, seconds: float) -> Result:
    """Operations per second of a large product; on a CPU tf32 may be the same as fp32."""
    precision, dtype = PRODUCTS[name]
    torch.set_float32_matmul_precision(precision)
    size = 128 if settings.tiny else 8192 if settings.cuda else 2048
    return {"operations": floor.measure(settings.torch_device, size, dtype=dtype).operations, "size": size}


def copy(settings: Settings, seconds: float) -> Result:
    """Bytes per second, read and written, of a copy inside the device's memory."""
    size = 128 if settings.tiny else 8192 if settings.cuda else 2048
    return {"bytes": floor.measure(settings.torch_device, size).bytes, "size": size}


def text(name: str, result: Result) -> str:
    """A result in words."""
    if name == "versions":
        parts = [f"{what} {result[what]}" for what in ("python", "torch", "cuda", "numpy", "jax", "driver")]
        return f"{result['device']}; {', '.join(parts)}"
    if name == "copy":
        return f"copy {result['bytes'] / 1e9:,.1f} GB/s"
    return f"product {name} {result['operations'] / 1e12:,.2f} TFLOP/s"


def lines(results: dict[str, Result]) -> list[str]:
    """The versions, and all ceilings in one line."""
    told = {name: failure(result) or text(name, result) for name, result in results.items()}
    first = told.pop("versions", None)
    return [*([first] if first else []), *(["; ".join(told.values())] if told else [])]


def peak(report: Report, precision: str) -> floor.Peak | None:
    """The ceilings, with products of a precision; None if they are not known."""
    found = report.results("a")
    try:
        return floor.Peak(found[precision]["operations"], found["copy"]["bytes"])
    except KeyError:
        return None


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
        return told.strip().partition("\n")[0]
    return None
