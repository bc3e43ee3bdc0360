"""A linear layer for inputs whose features come first in memory, such as the outputs of the fast GRU."""

from __future__ import annotations

import torch
from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `torch.nn.functional.linear`; if x ``(…, F)`` has its features first in memory, so does the result.

    Nothing is copied: it is one product for all rows.
    """
    if not _features_first(x):
        return torch.nn.functional.linear(x, weight, bias)
    flat = x.movedim(-1, 0).flatten(1)
    product = weight @ flat if bias is None else torch.addmm(bias[:, None], weight, flat)
    return product.unflatten(1, x.shape[:-1]).movedim(0, -1)


def _features_first(x: Tensor) -> bool:
    """Tell whether ``x (B, F)`` or ``(T, B, F)`` is a matrix of F rows in memory, though not one of F columns."""
    if x.ndim not in (2, 3) or x.is_contiguous():
        return False
    return x.stride(-2) == 1 and (x.ndim == 2 or x.stride(0) == x.shape[1])
