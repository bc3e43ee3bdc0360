"""A GRU over whole sequences on a CPU: the equations of `torch.nn.GRU`, with a hand-written backward pass.

Two things make it faster than `torch.nn.GRU` there. Features are the first dimension in memory, then time, then the
batch: a gate is a block of rows, and whatever is not recurrent is one product for all steps. And the backward pass is
one loop over time that does only the recurrent product, in place, while autograd would record a dozen small operations
per step.

With x_t the input, h the state and σ the sigmoid (Cho et al. 2014, as in cuDNN)::

    r, z = σ(W_i[rz] x_t + W_h[rz] h + b)
    n = tanh(W_in x_t + b_in + r ∘ (W_hn h + b_hn))
    next h = n + z ∘ (h - n)

Public shapes are time first, then batch, then features; `linear` multiplies such a tensor and keeps its layout.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Layer = tuple[Tensor, Tensor, Tensor]
"""A linear layer that reads states and inputs: its weights for the former, for the latter, and its bias."""


def gru_step(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> Tensor:
    """The next state ``(B, H)`` from input ``(B, F)`` and state ``(B, H)``. Not for gradients (see `gru_sequence`)."""
    size = h.shape[1]
    x, h = x.t(), h.t()  # (F, B), (H, B)
    bias = torch.cat([b_ih[: 2 * size] + b_hh[: 2 * size], b_ih[2 * size :]])
    gates, new = torch.addmm(bias[:, None], w_ih, x).split([2 * size, size])
    reset, update = gates.addmm_(w_hh[: 2 * size], h).sigmoid_().split(size)
    recurrent = torch.addmm(b_hh[2 * size :, None], w_hh[2 * size :], h)
    return torch.lerp(_tanh_(new.addcmul_(reset, recurrent)), h, update).t()


def gru_sequence(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> Tensor:
    """All states ``(T, B, H)`` from inputs ``(T, B, F)`` and the state before them ``(B, H)``, with gradients."""
    nothing = x.new_empty(0, h.shape[1]), x.new_empty(0, x.shape[2]), x.new_empty(0)
    return gru_readout(x, h, (w_ih, w_hh, b_ih, b_hh), [nothing])[0]


def gru_readout(
    x: Tensor, h: Tensor | None, weights: tuple[Tensor, ...], layers: Sequence[Layer]
) -> tuple[Tensor, Tensor]:
    """The same, and ``linear_sum(states, x, layers)`` in fewer operations. Without a state before them it is zero."""
    h = h if h is None else h.t()
    states, read = _GRUSequence.apply(x.permute(2, 0, 1), h, *weights, *itertools.chain(*layers))
    return states.permute(1, 2, 0), read.permute(1, 2, 0)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`torch.nn.functional.linear`; where x ``(…, F)`` lies features-first in memory, so does the result.

    Nothing is copied for it: it is one product for all rows.
    """
    if not _features_first(x):
        return torch.nn.functional.linear(x, weight, bias)
    return _rows_last(torch.addmm(bias[:, None], weight, x.movedim(-1, 0).flatten(1)), x)


def linear_sum(x: Tensor, other: Tensor, layers: Sequence[Layer]) -> Tensor:
    """Of each layer ``linear(x, layer[0], layer[2]) + linear(other, layer[1])``, side by side; as x lies in memory."""
    weight, other_weight, bias = (torch.cat(parts) for parts in zip(*layers, strict=True))
    if not _features_first(x):
        return torch.nn.functional.linear(x, weight, bias) + torch.nn.functional.linear(other, other_weight)
    of_other = torch.addmm(bias[:, None], other_weight, other.movedim(-1, 0).flatten(1))
    return _rows_last(torch.addmm(of_other, weight, x.movedim(-1, 0).flatten(1)), x)


def _features_first(x: Tensor) -> bool:
    """Whether ``x (B, F)`` or ``(T, B, F)`` is a matrix of F rows in memory, though not one of F columns."""
    if x.ndim not in (2, 3) or x.is_contiguous():
        return False
    return x.stride(-2) == 1 and (x.ndim == 2 or x.stride(0) == x.shape[1])


def _rows_last(product: Tensor, like: Tensor) -> Tensor:
    """A matrix of F rows as ``(…, F)``."""
    return product.unflatten(1, like.shape[:-1]).movedim(0, -1)


def _tanh_(x: Tensor) -> Tensor:
    """tanh in place. torch's own takes several times as long as its sigmoid on a CPU."""
    return x.mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)


class _GRUSequence(torch.autograd.Function):
    """Inside, everything is ``(features, T, B)``.

    `seen` holds what a step sees, the state before it, its input and a row of ones: r, z and the recurrent part of n,
    which are a step's block of 3 H rows, are one product with that, and so are the gradients of weights and biases, of
    all steps at once. `side` holds n and the linear layers: what they get from input and ones is one product for all
    steps, too. The backward pass finishes one step before it turns to the one before it, and leaves the gradients where
    the values were: what it works on stays in the processor's cache. So a graph can be gone through once.

    A trial starts with an empty memory, without a first state: nothing is multiplied with it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, h0: Tensor | None, *weights: Tensor) -> tuple[Tensor, Tensor]:
        (inputs, steps, batch), size = x.shape, weights[1].shape[1]
        weight, of_inputs, of_state = _joined(*weights)
        seen, side = _empty(x, size + inputs + 1, steps + 1, batch), _empty(x, len(of_inputs), steps, batch)
        blocks = _empty(x, 3 * size + len(of_state), steps + 1, batch)  # the last rows and step are for `backward`
        seen[:size, 0], seen[size:-1, :-1], seen[-1] = 0.0 if h0 is None else h0, x, 1.0
        # tanh(y) = 2 σ(2 y) - 1: torch's own tanh takes several times as long as its sigmoid on a CPU.
        doubled = torch.cat([2.0 * of_inputs[:size], of_inputs[size:]])
        torch.mm(doubled, seen[size:, :-1].flatten(1), out=side.flatten(1))
        gates, all_seen, states = blocks[: 3 * size, :-1], seen.unbind(1), seen[:size].unbind(1)
        parts = [part.unbind(1) for part in (side[:size], gates, gates[: 2 * size], *gates.split(size))]
        minus_one = x.new_full((), -1.0)
        for t, (new, block, rz, reset, update, recurrent) in enumerate(zip(*parts, strict=True)):
            if t == 0 and h0 is None:
                torch.mm(weight[:, size:], all_seen[t][size:], out=block)
            else:
                torch.mm(weight, all_seen[t], out=block)
            rz.sigmoid_()
            new.addcmul_(reset, recurrent, value=2.0).sigmoid_()
            torch.lerp(torch.add(minus_one, new, alpha=2.0, out=new), states[t], update, out=states[t + 1])
        ctx.save_for_backward(weight, of_inputs, of_state, side, blocks, seen)
        ctx.views, ctx.layers = (parts, states), [len(bias) for bias in weights[6::3]]
        ctx.set_materialize_grads(False)
        read = torch.addmm(side[size:].flatten(1), of_state, seen[:size, 1:].flatten(1)).unflatten(1, (steps, batch))
        return seen[:size, 1:], read

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        weight, of_inputs, of_state, side, blocks, seen = ctx.saved_tensors
        by_states, by_read = grad_outputs
        size, (of_x, of_h) = len(weight) // 3, ctx.needs_input_grad[:2]
        if by_read is None:
            by_read = torch.zeros_like(side[size:])
        # Below a step's gates stands the readout of the step before it: the state between them goes to both.
        side[size:], blocks[3 * size :, 0], blocks[3 * size :, 1:] = by_read, 0.0, by_read
        (parts, states), ctx.views = ctx.views, None  # kept until here: to make them takes as long as a product
        grad_h = _back(blocks, weight[:, :size], of_state, by_read[:, -1], by_states, parts, states, of_h)
        by_side, by_gates, inputs = side.flatten(1), blocks[: 3 * size, :-1].flatten(1), seen[:, :-1].flatten(1)
        grad_x = None
        if of_x:
            grad_x = torch.mm(weight[:, size:-1].t(), by_gates).addmm_(of_inputs[:, :-1].t(), by_side)
            grad_x = grad_x.unflatten(1, side.shape[1:])
        grad_w, grad_side = torch.mm(by_gates, inputs.t()), torch.mm(by_side, inputs[size:].t())
        grad_of_state = torch.mm(by_read.flatten(1), seen[:size, 1:].flatten(1).t())
        return grad_x, grad_h, *_parted(grad_w, grad_side, grad_of_state, ctx.layers)


def _back(
    blocks: Tensor,
    w_h: Tensor,
    of_state: Tensor,
    last: Tensor,
    by_states: Tensor | None,
    parts: list[Sequence[Tensor]],
    states: Sequence[Tensor],
    of_h: bool,
) -> Tensor | None:
    """Put a step's gradients in the place of its n and its gates, from the last step to the first.

    `last` is the gradient of the last step's readout. Returns the first state's gradient, if it is asked for.
    """
    back, wholes = torch.cat([w_h, of_state]).t().contiguous(), blocks.unbind(1)
    by_new, scratch = torch.empty_like(states[0]), torch.empty_like(states[0])
    carry = torch.mm(of_state.t(), last)
    for t, (new, _, _, reset, update, recurrent) in reversed(list(enumerate(zip(*parts, strict=True)))):
        if by_states is not None:
            carry += by_states[:, t]
        torch.addcmul(carry, carry, update, value=-1.0, out=by_new)
        carry = carry * update
        # The gradient of z before the sigmoid is (h - n) ∘ z ∘ (1 - z) ∘ carry, and (h - n) ∘ z is next h - n.
        torch.mul(torch.sub(states[t + 1], new, out=scratch), by_new, out=update)
        _tanh_backward(by_new, new, grad_input=new)
        torch.mul(new, recurrent, out=scratch)
        torch.mul(new, reset, out=recurrent)
        _sigmoid_backward(scratch, reset, grad_input=reset)
        if t or of_h:
            carry.addmm_(back, wholes[t])
    return carry if of_h else None


def _empty(like: Tensor, features: int, steps: int, batch: int) -> Tensor:
    """``(features, steps, batch)`` whose rows are a little apart: at distances of powers of two they would share the
    same few lines of the processor's cache."""
    return like.new_empty(features, steps * batch + 16)[:, :-16].unflatten(1, (steps, batch))


_tanh_backward = torch.ops.aten.tanh_backward.grad_input
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input


def _joined(w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, *layers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The weights of r, z and the recurrent part of n for (state, input, 1), those of n and all layers for (input, 1),
    and those of all layers for the state."""
    size, inputs = w_hh.shape[1], w_ih.shape[1]
    rz, n = slice(0, 2 * size), slice(2 * size, None)
    weight = w_hh.new_zeros(3 * size, size + inputs + 1)
    weight[:, :size], weight[rz, size:-1], weight[:, -1] = w_hh, w_ih[rz], b_hh
    weight[rz, -1] += b_ih[rz]
    of_inputs = torch.cat([torch.cat([w_ih[n], *layers[1::3]]), torch.cat([b_ih[n], *layers[2::3]])[:, None]], dim=1)
    return weight, of_inputs, torch.cat(layers[::3])


def _parted(weight: Tensor, of_inputs: Tensor, of_state: Tensor, parts: list[int]) -> list[Tensor]:
    """Gradients of `_joined`'s results as those of its arguments; `parts` are the sizes of the layers."""
    size = len(weight) // 3
    joined = torch.cat([weight[: 2 * size, size:], of_inputs[:size]])
    of_layers = of_inputs[size:].split(parts)
    layers = zip(of_state.split(parts), (part[:, :-1] for part in of_layers), (part[:, -1] for part in of_layers))
    return [joined[:, :-1], weight[:, :size], joined[:, -1], weight[:, -1], *itertools.chain(*layers)]
