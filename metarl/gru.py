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
    """`torch.nn.functional.linear` for ``(T, B, F)``; one product per step if x lies batch-last in memory, uncopied."""
    if x.ndim != 3 or x.is_contiguous() or not x.transpose(1, 2).is_contiguous():
        return torch.nn.functional.linear(x, weight, bias)
    steps = x.shape[0]
    product = torch.baddbmm(bias[None, :, None], weight.expand(steps, *weight.shape), x.transpose(1, 2))
    return product.transpose(1, 2)


def _tanh_(x: Tensor) -> Tensor:
    """tanh in place. torch's own takes several times as long as its sigmoid on a CPU."""
    return x.mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)


class _GRUSequence(torch.autograd.Function):
    """Inside, everything is ``(T, features, B)``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, h0: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> Tensor:
        steps, _, batch = x.shape
        size = h0.shape[0]
        x = x.contiguous()
        bias = torch.cat([(b_ih + b_hh)[: 2 * size], b_ih[2 * size :]])
        # One batched product projects the inputs of all steps; the loop turns the result into the gates in place.
        gates = torch.baddbmm(bias[None, :, None], w_ih.expand(steps, *w_ih.shape), x)  # (T, 3H, B)
        recurrent = torch.empty(steps, size, batch, dtype=x.dtype)
        states = torch.empty(steps + 1, size, batch, dtype=x.dtype)
        states[0] = h0
        w_rz, w_n, b_n = w_hh[: 2 * size], w_hh[2 * size :], b_hh[2 * size :, None]
        h = states[0]
        for rz, reset, update, new, rec, out in zip(
            gates[:, : 2 * size].unbind(),
            gates[:, :size].unbind(),
            gates[:, size : 2 * size].unbind(),
            gates[:, 2 * size :].unbind(),
            recurrent.unbind(),
            states[1:].unbind(),
            strict=True,
        ):
            rz.addmm_(w_rz, h).sigmoid_()
            torch.addmm(b_n, w_n, h, out=rec)
            _tanh_(new.addcmul_(reset, rec))
            h = torch.lerp(new, h, update, out=out)
        ctx.save_for_backward(x, w_ih, w_hh, gates, recurrent, states)
        return states[1:]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, w_ih, w_hh, gates, recurrent, states = ctx.saved_tensors
        steps, size, batch = recurrent.shape
        grad = grad_outputs[0].contiguous()
        reset, update, new = gates.split(size, dim=1)
        # What does not depend on the gradient that comes back through time is done for all steps at once.
        factor_z = torch.sub(states[:-1], new).mul_(update).mul_(1.0 - update)  # d h'/d (z's pre-activation)
        factor_n = torch.addcmul(torch.ones((), dtype=x.dtype), new, new, value=-1.0).mul_(1.0 - update)
        factor_r = torch.mul(recurrent, reset).mul_(1.0 - reset)  # d (n's pre-activation)/d (r's pre-activation)
        into_recurrent = torch.empty(steps, 3 * size, batch, dtype=x.dtype)  # gradient of W_h h + b_h
        into_new = torch.empty(steps, size, batch, dtype=x.dtype)  # gradient of n's pre-activation
        w_t = w_hh.t().contiguous()
        carry = torch.zeros(size, batch, dtype=x.dtype)
        scratch = torch.empty_like(carry)
        for t in range(steps - 1, -1, -1):
            carry.add_(grad[t])
            d = into_recurrent[t]
            d_n = torch.mul(carry, factor_n[t], out=into_new[t])
            torch.mul(d_n, factor_r[t], out=d[:size])
            torch.mul(carry, factor_z[t], out=d[size : 2 * size])
            torch.mul(d_n, reset[t], out=d[2 * size :])
            torch.mul(carry, update[t], out=scratch)
            torch.addmm(scratch, w_t, d, out=carry)
        into_gates = torch.cat([into_recurrent[:, : 2 * size], into_new], dim=1)
        grad_w_hh = _sum_of_products(into_recurrent, states[:-1])
        grad_w_ih = _sum_of_products(into_gates, x)
        grad_x = torch.matmul(w_ih.t(), into_gates) if ctx.needs_input_grad[0] else None
        return grad_x, carry, grad_w_ih, grad_w_hh, into_gates.sum((0, 2)), into_recurrent.sum((0, 2))


def _sum_of_products(a: Tensor, b: Tensor) -> Tensor:
    """Σ_t a[t] b[t]ᵀ for ``(T, M, B)`` and ``(T, N, B)``: ``(M, N)``."""
    total = torch.zeros(a.shape[1], b.shape[1], dtype=a.dtype)
    for a_t, b_t in zip(a.unbind(), b.unbind(), strict=True):
        total.addmm_(a_t, b_t.t())
    return total
