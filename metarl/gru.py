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
    """Inside, everything is ``(T, features, B)``.

    Each step has a block of 4 H rows: n, r, z, and the recurrent part of n. What x feeds are its first 3 H rows and
    what h feeds its last 3 H, so that each of the two is one product and nothing is put together. The backward pass
    finishes one step before it turns to the one before it: what it works on stays in the processor's cache.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, h0: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> Tensor:
        steps, _, batch = x.shape
        size = h0.shape[0]
        x = x.contiguous()
        bias = torch.cat([b_ih[2 * size :], (b_ih + b_hh)[: 2 * size]])
        gates = x.new_empty(steps, 4 * size, batch)
        w_x = _n_first(w_ih).expand(steps, -1, -1)
        torch.baddbmm(bias[None, :, None], w_x, x, out=gates[:, : 3 * size])
        gates[:, 3 * size :] = b_hh[2 * size :, None]
        states = x.new_empty(steps + 1, size, batch)
        states[0] = h0
        h, minus_one = states[0], x.new_full((), -1.0)
        for new, reset, update, recurrent, rz, fed_by_h, out in zip(
            *(part.unbind() for part in gates.split(size, dim=1)),
            gates[:, size : 3 * size].unbind(),
            gates[:, size:].unbind(),
            states[1:].unbind(),
            strict=True,
        ):
            fed_by_h.addmm_(w_hh, h)
            rz.sigmoid_()
            # tanh(y) = 2 σ(2 y) - 1: torch's own tanh takes several times as long as its sigmoid on a CPU.
            torch.add(minus_one, new.addcmul_(reset, recurrent).mul_(2.0).sigmoid_(), alpha=2.0, out=new)
            h = torch.lerp(new, h, update, out=out)
        ctx.save_for_backward(x, w_ih, w_hh, gates, states)
        return states[1:]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, w_ih, w_hh, gates, states = ctx.saved_tensors
        steps, size, batch = grad_outputs[0].shape
        w_h, w_x = w_hh.t().contiguous(), _n_first(w_ih).t()
        grad_w_h, grad_w_x = torch.zeros_like(w_hh), torch.zeros_like(w_ih)
        block = x.new_empty(4 * size, batch)  # gradient of a step's pre-activations
        d_new, d_reset, d_update, d_recurrent = block.split(size)
        into_x, into_h = block[: 3 * size], block[size:]
        grad_b = torch.zeros_like(block)
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        one, scratch = x.new_ones(()), x.new_empty(size, batch)
        grad = grad_outputs[0].contiguous()
        carry = grad[-1]
        for t in range(steps - 1, -1, -1):
            new, reset, update, recurrent = gates[t].split(size)
            h = states[t]
            passed = torch.sub(one, update, out=scratch).mul_(carry)
            torch.sub(h, new, out=d_update).mul_(update).mul_(passed)
            torch.addcmul(passed, passed, new * new, value=-1.0, out=d_new)
            torch.mul(d_new, reset, out=d_recurrent)
            torch.mul(d_recurrent, recurrent, out=d_reset)
            d_reset.addcmul_(d_reset, reset, value=-1.0)
            carry = torch.mul(carry, update) if t == 0 else torch.addcmul(grad[t - 1], carry, update)
            carry.addmm_(w_h, into_h)
            grad_w_h.addmm_(into_h, h.t())
            grad_w_x.addmm_(into_x, x[t].t())
            grad_b.add_(block)
            if grad_x is not None:
                torch.mm(w_x, into_x, out=grad_x[t])
        of_rows = grad_b.sum(1)
        return grad_x, carry, _n_last(grad_w_x), grad_w_h, _n_last(of_rows[: 3 * size]), of_rows[size:]


def _n_first(rows: Tensor) -> Tensor:
    """torch's rows r, z, n in the order n, r, z."""
    return rows.roll(len(rows) // 3, 0)


def _n_last(rows: Tensor) -> Tensor:
    """Rows n, r, z in torch's order r, z, n."""
    return rows.roll(-(len(rows) // 3), 0)
