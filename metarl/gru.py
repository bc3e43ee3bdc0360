"""A GRU over whole sequences on a CPU: the equations of `torch.nn.GRU`, with a hand-written backward pass.

Two things make it faster than `torch.nn.GRU` there. The batch is the last dimension in memory, so every gate is one
contiguous block and nothing is copied to be multiplied. And the backward pass is one loop over time that does only the
recurrent product in place, while autograd would record a dozen small operations per step.

With x_t the input, h the state and σ the sigmoid (Cho et al. 2014, as in cuDNN)::

    r, z = σ(W_i[rz] x_t + W_h[rz] h + b)
    n = tanh(W_in x_t + b_in + r ∘ (W_hn h + b_hn))
    next h = n + z ∘ (h - n)

Public shapes are time first, then batch, then features; `linear` multiplies such a tensor and keeps its layout.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def gru_step(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> Tensor:
    """The next state ``(B, H)`` from input ``(B, F)`` and state ``(B, H)``. Not for gradients (see `gru_sequence`)."""
    size = h.shape[1]
    x, h = x.t(), h.t()  # (F, B), (H, B)
    gates = torch.addmm((b_ih + b_hh)[: 2 * size, None], w_ih[: 2 * size], x)
    reset, update = gates.addmm_(w_hh[: 2 * size], h).sigmoid_().split(size)
    recurrent = torch.addmm(b_hh[2 * size :, None], w_hh[2 * size :], h)
    new = torch.addmm(b_ih[2 * size :, None], w_ih[2 * size :], x).addcmul_(reset, recurrent)
    return torch.lerp(_tanh_(new), h, update).t()


def gru_sequence(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> Tensor:
    """All states ``(T, B, H)`` from inputs ``(T, B, F)`` and the state before them ``(B, H)``, with gradients."""
    out: Tensor = _GRUSequence.apply(x.transpose(1, 2), h.t(), w_ih, w_hh, b_ih, b_hh)
    return out.transpose(1, 2)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`torch.nn.functional.linear`; where x ``(B, F)`` or ``(T, B, F)`` lies batch-last in memory, so does the result.

    Nothing is copied for it: it is one product per step.
    """
    if x.ndim not in (2, 3) or x.is_contiguous() or not x.transpose(-1, -2).is_contiguous():
        return torch.nn.functional.linear(x, weight, bias)
    if x.ndim == 2:
        return torch.addmm(bias[:, None], weight, x.t()).t()
    steps = x.shape[0]
    product = torch.baddbmm(bias[None, :, None], weight.expand(steps, *weight.shape), x.transpose(1, 2))
    return product.transpose(1, 2)


def linear_sum(x: Tensor, weight: Tensor, other: Tensor, other_weight: Tensor, bias: Tensor) -> Tensor:
    """``linear(x, weight, bias) + linear(other, other_weight)``, batch-last where x is."""
    if x.ndim not in (2, 3) or x.is_contiguous() or not x.transpose(-1, -2).is_contiguous():
        return torch.nn.functional.linear(x, weight, bias) + torch.nn.functional.linear(other, other_weight)
    if x.ndim == 2:
        return torch.addmm(bias[:, None], other_weight, other.t()).addmm(weight, x.t()).t()
    steps = x.shape[0]
    of_other = torch.baddbmm(bias[None, :, None], other_weight.expand(steps, -1, -1), other.transpose(1, 2))
    return torch.baddbmm(of_other, weight.expand(steps, -1, -1), x.transpose(1, 2)).transpose(1, 2)


def _tanh_(x: Tensor) -> Tensor:
    """tanh in place. torch's own takes several times as long as its sigmoid on a CPU."""
    return x.mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)


class _GRUSequence(torch.autograd.Function):
    """Inside, everything is ``(T, features, B)``.

    `seen` holds what a step sees, the state before it, its input and a row of ones: r, z and the recurrent part of n,
    which are a step's block of 3 H rows, are one product with that, and so are the gradients of weights and biases.
    What n gets from input and ones is one product for all steps. The backward pass finishes one step before it turns to
    the one before it: what it works on stays in the processor's cache.

    A trial starts with an empty memory: products with a first state that is zero are left out.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, h0: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> Tensor:
        (steps, inputs, batch), size = x.shape, len(h0)
        weight, weight_n = _joined(w_ih, w_hh, b_ih, b_hh)
        seen = x.new_empty(steps + 1, size + inputs + 1, batch)
        seen[0, :size], seen[:-1, size:-1], seen[:, -1] = h0, x, 1.0
        # tanh(y) = 2 σ(2 y) - 1: torch's own tanh takes several times as long as its sigmoid on a CPU.
        news = torch.bmm((2.0 * weight_n).expand(steps, -1, -1), seen[:-1, size:])
        gates = x.new_empty(steps, 3 * size, batch)
        minus_one, empty = x.new_full((), -1.0), not bool(h0.any())
        for t, (new, block, rz, reset, update, recurrent, all_seen, h, out) in enumerate(
            zip(
                news.unbind(),
                gates.unbind(),
                gates[:, : 2 * size].unbind(),
                *(part.unbind() for part in gates.split(size, dim=1)),
                seen.unbind()[:-1],
                seen[:, :size].unbind()[:-1],
                seen[1:, :size].unbind(),
                strict=True,
            )
        ):
            if t == 0 and empty:
                torch.mm(weight[:, size:], all_seen[size:], out=block)
            else:
                torch.mm(weight, all_seen, out=block)
            rz.sigmoid_()
            new.addcmul_(reset, recurrent, value=2.0).sigmoid_()
            torch.lerp(torch.add(minus_one, new, alpha=2.0, out=new), h, update, out=out)
        ctx.save_for_backward(weight, weight_n, news, gates, seen)
        ctx.empty = empty
        return seen[1:, :size].contiguous()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        weight, weight_n, news, gates, seen = ctx.saved_tensors
        steps, size, batch = grad_outputs[0].shape
        w_h, w_x = weight[:, :size].t().contiguous(), weight[:, size:-1].t()
        grad_w = torch.zeros_like(weight)
        block = seen.new_empty(3 * size, batch)  # gradient of a step's pre-activations but n's
        d_news = torch.empty_like(news)
        (d_reset, d_update, d_recurrent), d_rz = block.split(size), block[: 2 * size]
        grad_x = seen.new_empty(steps, len(w_x), batch) if ctx.needs_input_grad[0] else None
        scratch = seen.new_empty(size, batch)
        grads, states, all_seen = grad_outputs[0].unbind(), seen[:, :size].unbind(), seen.transpose(1, 2).unbind()
        gated = zip(*(part.unbind() for part in gates.split(size, dim=1)), gates[:, : 2 * size].unbind(), strict=True)
        parts = list(zip(news.unbind(), d_news.unbind(), gated, strict=True))
        carry = grads[-1]
        for t in range(steps - 1, -1, -1):
            new, d_new, (reset, update, recurrent, rz) = parts[t]
            torch.sub(states[t], new, out=d_update).mul_(carry)
            _tanh_backward(torch.addcmul(carry, carry, update, value=-1.0, out=scratch), new, grad_input=d_new)
            torch.mul(d_new, reset, out=d_recurrent)
            torch.mul(d_new, recurrent, out=d_reset)
            _sigmoid_backward(d_rz, rz, grad_input=d_rz)
            # A first state of zeros has no share in the weights' gradient.
            first = size if t == 0 and ctx.empty else 0
            grad_w[:, first:].addmm_(block, all_seen[t][:, first:])
            if grad_x is not None:
                torch.mm(w_x, block, out=grad_x[t])
            if t or ctx.needs_input_grad[1]:
                carry = torch.addcmul(grads[t - 1], carry, update) if t else torch.mul(carry, update)
                carry.addmm_(w_h, block)
        if grad_x is not None:
            grad_x.baddbmm_(weight_n[:, :-1].t().expand(steps, -1, -1), d_news)
        grad_n = torch.bmm(d_news, seen[:-1, size:].transpose(1, 2)).sum(0)
        return grad_x, carry if ctx.needs_input_grad[1] else None, *_parted(grad_w, grad_n, size)


_tanh_backward = torch.ops.aten.tanh_backward.grad_input
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input


def _joined(w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> tuple[Tensor, Tensor]:
    """The weights of r, z and the recurrent part of n for (state, input, 1), and those of n for (input, 1)."""
    size, inputs = w_hh.shape[1], w_ih.shape[1]
    rz, n = slice(0, 2 * size), slice(2 * size, None)
    weight = w_hh.new_zeros(3 * size, size + inputs + 1)
    weight[:, :size], weight[rz, size:-1], weight[:, -1] = w_hh, w_ih[rz], b_hh
    weight[rz, -1] += b_ih[rz]
    return weight, torch.cat([w_ih[n], b_ih[n, None]], dim=1)


def _parted(weight: Tensor, weight_n: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `_joined`'s results as those of its arguments."""
    joined = torch.cat([weight[: 2 * size, size:], weight_n])
    return joined[:, :-1], weight[:, :size], joined[:, -1], weight[:, -1]
