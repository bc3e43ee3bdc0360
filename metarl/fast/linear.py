"""Linear layers on a CPU: for feature-major inputs, and for more rows than fit in the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

BLOCK = 1 << 19
"""Block size in numbers of a hidden layer: about what fits in a processor's cache."""


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
    """Return whether ``x (B, F)`` or ``(T, B, F)`` is feature-major in memory (F rows, not F columns)."""
    if x.ndim not in (2, 3) or x.is_contiguous():
        return False
    return x.stride(-2) == 1 and (x.ndim == 2 or x.stride(0) == x.shape[1])


def hidden_layers(
    total: Tensor, last: Tensor | None, of_last: Tensor | None, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> Tensor:
    """Return what `metarl.learning.soft.hidden_layers` returns, block by block of the rows."""
    output: Tensor = _HiddenLayers.apply(total, last, of_last, *weights, *biases)
    return output


def many_rows(
    total: Tensor, last: Tensor | None, of_last: Tensor | None, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> bool:
    """Return whether the first layer is large enough for blocks to pay off."""
    return total.numel() > 2 * BLOCK


class _HiddenLayers(torch.autograd.Function):
    """Hidden layers applied block by block: each block of rows passes all layers, forward or back, before the next.

    A block thus stays in the processor's cache. Activations are written in place, and gradients over each other. The
    saved tensors of a layer are its weight ``(N, out, in)`` and its inputs ``(N, rows, in)``, which are at least 0.
    """

    @staticmethod
    def forward(ctx: Any, total: Tensor, last: Tensor | None, of_last: Tensor | None, *layers: Tensor) -> Tensor:
        weights, biases = _halves(layers)
        number, rows = len(weights[0]), len(total)
        units = [total.new_empty(number, rows, weight.shape[2]) for weight in weights]
        output = total.new_empty(number, rows, weights[-1].shape[1])
        for block in _blocks(total):
            first = total[block]
            if last is not None and of_last is not None:
                first = torch.addmm(first, last[block], of_last.t())
            torch.clamp_min(first.unflatten(1, (number, -1)).transpose(0, 1), 0.0, out=units[0][:, block])
            for weight, bias, x, y in zip(weights, biases, units, [*units[1:], output], strict=True):
                torch.baddbmm(bias.mT, x[:, block], weight.mT, out=y[:, block])
                if y is not output:
                    y[:, block].relu_()
        ctx.save_for_backward(last, of_last, *weights, *units)
        return output

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        last, of_last, *layers = ctx.saved_tensors
        weights, units = _halves(layers)
        by_total = units[0].new_empty(units[0].shape[1], units[0].shape[0] * units[0].shape[2])
        by_last, by_part = (None if x is None else torch.zeros_like(x) for x in (last, of_last))
        by_weights = [torch.zeros_like(weight) for weight in weights]
        by_biases = [torch.zeros_like(weight[..., :1]) for weight in weights]
        for block in _blocks(by_total):
            grad = grad_outputs[0][:, block]
            for n in reversed(range(len(weights))):
                x = units[n][:, block]
                if ctx.needs_input_grad[3]:
                    by_weights[n].baddbmm_(grad.mT, x)
                    by_biases[n].add_(grad.sum(1)[..., None])
                grad = torch.bmm(grad, weights[n])
                _relu_backward(grad, x, 0, grad_input=grad)
            by_total[block] = grad.transpose(0, 1).flatten(1)
            if by_last is not None and by_part is not None:
                torch.mm(by_total[block], of_last, out=by_last[block])
                if ctx.needs_input_grad[2]:
                    by_part.addmm_(by_total[block].t(), last[block])
        found = by_total, by_last, by_part, *by_weights, *by_biases
        return tuple(grad if needed else None for grad, needed in zip(found, ctx.needs_input_grad, strict=True))


_relu_backward = torch.ops.aten.threshold_backward.grad_input


def _blocks(total: Tensor) -> Iterator[slice]:
    """Cut the rows ``(rows, F)`` into slices of about `BLOCK` numbers."""
    rows = max(1, BLOCK // total.shape[1])
    return (slice(first, first + rows) for first in range(0, len(total), rows))


def _halves(tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Return the first and the second half."""
    return tensors[: len(tensors) // 2], tensors[len(tensors) // 2 :]
