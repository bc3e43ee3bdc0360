"""Process-wide settings that make torch faster; `train` and `evaluate` call `tune`."""

from __future__ import annotations

import ctypes
import sys

import torch

from metarl.core.faults.given import device_here

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt(3)


def tune(num_threads: int | None = None) -> dict[str, str]:
    """Apply the settings and return them by name, for the log.

    - Matrix products on float32 may go through oneDNN or tensor cores (`set_float32_matmul_precision("medium")`).
    - Denormal numbers count as zero, since a CPU computes slowly with them: recurrent states decay to such numbers.
    - Freed memory stays with the process, since fresh pages for every large temporary tensor cost time.
    """
    torch.set_float32_matmul_precision("medium")
    denormal = torch.set_flush_denormal(True)
    kept = False
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it, musl does not
        if mallopt is not None:
            kept = bool(mallopt(_M_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1))
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    return {
        "float32 matmul precision": f"medium ({products()} on this processor)",
        "denormals flushed": str(denormal),
        "freed memory kept": str(kept),
        "threads": str(torch.get_num_threads()),
    }


def products() -> str:
    """Return the precision of matrix products with "medium" on this processor: "bfloat16" or "float32".

    "medium" permits bfloat16. The precision is measured, since neither torch nor oneDNN reports it. oneDNN 3.12 keeps
    float32 even on processors with AVX-512 and its bfloat16 instructions.
    """
    a = torch.sin(torch.arange(128.0 * 128.0)).reshape(128, 128)
    exact = a.double() @ a.double()
    error = float(((a @ a).double() - exact).abs().max() / exact.abs().max())
    return "bfloat16" if error > 1e-4 else "float32"


def samples_at_once(device: torch.device) -> int:
    """Return the best batch size for a small network's gradient: on a CPU, the samples that fit in its cache."""
    return 20_000 if device.type == "cpu" else sys.maxsize


def resolve_device(device: str) -> torch.device:
    """Return the device of "cpu", "cuda" or "auto" (cuda if there is one). Raises ValueError if there is none."""
    if device not in ("cpu", "cuda", "auto"):  # a run has no number of a device: `CUDA_VISIBLE_DEVICES` chooses one
        raise ValueError(f"device must be 'cpu', 'cuda' or 'auto', got {device!r}.")
    return device_here(device)
