"""A GRU over whole sequences on a CPU: the equations of `torch.nn.GRU`, with a hand-written backward pass.

Two things make it faster than `torch.nn.GRU` there. First, the order in memory is features, time, batch: a gate is a
block of rows, and everything that is not recurrent is one product for all steps. Second, the backward pass is one loop
over time that does only the recurrent product, in place, while autograd would record a dozen small operations per step.

With x_t the input, h the state and σ the sigmoid (Cho et al. 2014, as in cuDNN)::

    r, z = σ(W_i[rz] x_t + W_h[rz] h + b)
    n = tanh(W_in x_t + b_in + r ∘ (W_hn h + b_hn))
    next h = n + z ∘ (h - n)

Several cells of the same sizes can take one pass over time, side by side: with few rows a step is mostly the cost of
calling its operations, which is then paid once. There the order in memory is cells, time, batch, features: a step's
rows stay together, and long products still see all steps at once.

Public shapes are time first, then batch, then features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from metarl.fast.tanh import tanh_


def gru(x: Tensor, h: Tensor | None, cell: nn.GRU) -> Tensor:
    """Return all states ``(T, B, H)`` from inputs ``(T, B, F)`` and the state before them ``(B, H)``; None: zero.

    Gradients can be taken once: the backward pass overwrites the graph's values.
    """
    states: Tensor = _GRU.apply(x.permute(2, 0, 1), h if h is None else h.t(), *cell.parameters())
    return states.permute(1, 2, 0)


def grus(xs: Sequence[Tensor], hs: Sequence[Tensor | None], cells: Sequence[nn.GRU]) -> list[Tensor]:
    """Return what `gru` returns for each of several `alike` cells, from inputs ``(T, B, F)`` and states of their own.

    Gradients can be taken once, and those of all cells together. A cell without gradients costs no backward pass.
    """
    given = [(x, h, *cell.parameters()) for x, h, cell in zip(xs, hs, cells, strict=True)]
    learns = [torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in each) for each in given]
    order = sorted(range(len(cells)), key=lambda number: not learns[number])  # those that learn first
    states = _GRUs.apply(sum(learns), len(cells), *(given[number][part] for part in range(6) for number in order))
    return [states[order.index(number)] for number in range(len(cells))]


def alike(xs: Sequence[Tensor], hs: Sequence[Tensor | None], cells: Sequence[nn.GRU]) -> bool:
    """Return whether all cells, inputs and states have the same shapes, so that `grus` can batch them."""
    shapes = {(x.shape, h is None, cell.input_size, cell.hidden_size) for x, h, cell in zip(xs, hs, cells, strict=True)}
    return len(shapes) == 1


def gru_step(x: Tensor, h: Tensor, cell: nn.GRU) -> Tensor:
    """Return the next state ``(B, H)`` from input ``(B, F)`` and state ``(B, H)``."""
    if torch.is_grad_enabled():
        return gru(x[None], h, cell)[0]
    w_ih, w_hh, b_ih, b_hh = cell.parameters()
    size = h.shape[1]
    x, h = x.t(), h.t()  # (F, B), (H, B)
    bias = torch.cat([b_ih[: 2 * size] + b_hh[: 2 * size], b_ih[2 * size :]])
    gates, new = torch.addmm(bias[:, None], w_ih, x).split([2 * size, size])
    reset, update = gates.addmm_(w_hh[: 2 * size], h).sigmoid_().split(size)
    recurrent = torch.addmm(b_hh[2 * size :, None], w_hh[2 * size :], h)
    return torch.lerp(tanh_(new.addcmul_(reset, recurrent)), h, update).t()


class _GRU(torch.autograd.Function):
    """The GRU as one node of autograd's graph; all tensors are ``(features, T, B)``.

    `seen` holds a step's inputs: the state before it, its input and a row of ones. One product with it gives r, z and
    the recurrent part of n, a step's block of 3 H rows. The gradients of weights and biases are such a product, too,
    for all steps at once. The part of n from input and ones is one product for all steps. The backward pass finishes
    one step before it starts with the previous one, and writes gradients over the values, so that its data stay in the
    processor's cache. Hence gradients can be taken only once.

    Without a first state (a trial starts with an empty memory) the product with it is left out.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, h0: Tensor | None, *weights: Tensor) -> Tensor:
        (inputs, steps, batch), size = x.shape, weights[1].shape[1]
        weight, of_inputs = _joined(*weights)
        seen, new_gate = _empty(x, size + inputs + 1, steps + 1, batch), _empty(x, size, steps, batch)
        blocks = _empty(x, 3 * size, steps, batch)
        seen[:size, 0], seen[size:-1, :-1], seen[-1] = 0.0 if h0 is None else h0, x, 1.0
        # tanh(y) = 2 σ(2 y) - 1: torch's own tanh takes several times as long as its sigmoid on a CPU.
        torch.mm(2.0 * of_inputs, seen[size:, :-1].flatten(1), out=new_gate.flatten(1))
        all_seen, states = seen.unbind(1), seen[:size].unbind(1)
        parts = [part.unbind(1) for part in (new_gate, blocks, blocks[: 2 * size], *blocks.split(size))]
        if h0 is None:
            torch.mm(weight[:, size:], all_seen[0][size:], out=parts[1][0])
        _forth(lambda seen, block: torch.mm(weight, seen, out=block), all_seen, parts, states, skip=h0 is None)
        ctx.save_for_backward(weight, of_inputs, new_gate, blocks, seen)
        ctx.views = parts, states
        return seen[:size, 1:]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        weight, of_inputs, new_gate, blocks, seen = ctx.saved_tensors
        size, (of_x, of_h) = len(of_inputs), ctx.needs_input_grad[:2]
        (parts, states), ctx.views = (
            ctx.views,
            None,
        )  # kept until here: making them takes as long as a product
        back = weight[:, :size].t().contiguous()
        by_states = grad_outputs[0].unbind(1)
        grad_h = _back(lambda carry, block: carry.addmm_(back, block), by_states, parts, states, of_h)
        by_new, by_gates, inputs = new_gate.flatten(1), blocks.flatten(1), seen[:, :-1].flatten(1)
        grad_x = None
        if of_x:
            grad_x = torch.mm(weight[:, size:-1].t(), by_gates).addmm_(of_inputs[:, :-1].t(), by_new)
            grad_x = grad_x.unflatten(1, blocks.shape[1:])
        grads = _parted(torch.mm(by_gates, inputs.t()), torch.mm(by_new, inputs[size:].t()))
        return grad_x, grad_h, *grads


class _GRUs(torch.autograd.Function):
    """Several GRUs as one node; all tensors are ``(cells, T, B, features)``, and otherwise as in `_GRU`.

    Arguments are of the cells in order, of which the first `learning` have gradients: all inputs ``(T, B, F)``, all
    first states, and four times all weights. One product for each cell, in a batch, takes the place of each product.
    """

    @staticmethod
    def forward(ctx: Any, learning: int, number: int, *given: Any) -> tuple[Tensor, ...]:
        xs, hs, *weights = (given[n : n + number] for n in range(0, 6 * number, number))
        (steps, batch, inputs), size = xs[0].shape, weights[1][0].shape[1]
        weight, of_inputs = map(torch.stack, zip(*map(_joined, *weights), strict=True))
        seen = xs[0].new_empty(number, steps + 1, batch, size + inputs + 1)
        seen[:, 0, :, :size] = 0.0 if hs[0] is None else torch.stack(hs)
        seen[..., -1] = 1.0
        torch.stack(xs, out=seen[:, :-1, :, size:-1])
        new_gate = torch.bmm(seen[:, :-1, :, size:].flatten(1, 2), 2.0 * of_inputs.mT).unflatten(1, (steps, batch))
        # Without gradients the steps share the memory for a block.
        blocks = seen.new_empty(number, steps if learning else 1, batch, 3 * size).expand(-1, steps, -1, -1)
        parts, states = _steps_of(new_gate, blocks, seen)
        of_seen = weight.mT.contiguous()
        _forth(lambda seen, block: torch.bmm(seen, of_seen, out=block), seen.unbind(1), parts, states)
        ctx.save_for_backward(weight, of_inputs, new_gate, blocks, seen)
        ctx.learning = learning
        outputs: tuple[Tensor, ...] = seen[:, 1:, :, :size].unbind()
        ctx.mark_non_differentiable(*outputs[learning:])
        return outputs

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        learn, number = slice(ctx.learning), len(grad_outputs)
        weight, of_inputs, new_gate, blocks, seen = (saved[learn] for saved in ctx.saved_tensors)
        size, steps = of_inputs.shape[1], blocks.shape[1:3]
        of_h = any(ctx.needs_input_grad[2 + number : 2 + 2 * number])
        parts, states = _steps_of(new_gate, blocks, seen)
        back = weight[..., :size].contiguous()
        by_states = torch.stack(grad_outputs[learn]).unbind(1)
        grad_h = _back(lambda carry, block: carry.baddbmm_(block, back), by_states, parts, states, of_h)
        by_new, by_gates, inputs = new_gate.flatten(1, 2), blocks.flatten(1, 2), seen[:, :-1].flatten(1, 2)
        grad_x = torch.bmm(by_gates, weight[..., size:-1]).baddbmm_(by_new, of_inputs[..., :-1]).unflatten(1, steps)
        of_weights = map(_parted, torch.bmm(by_gates.mT, inputs), torch.bmm(by_new.mT, inputs[..., size:]))
        none: list[Tensor | None] = [None] * number
        parts_of_cells = grad_x.unbind(), none if grad_h is None else grad_h.unbind(), *zip(*of_weights, strict=True)
        return None, None, *(grad for part in parts_of_cells for grad in [*part, *none][:number])


def _steps_of(new_gate: Tensor, blocks: Tensor, seen: Tensor) -> tuple[list[Sequence[Tensor]], Sequence[Tensor]]:
    """Return a step's n, its block and the parts of that, and its state, for all steps, of tensors ``(N, T, B, F)``."""
    size = new_gate.shape[-1]
    parts = new_gate, blocks, blocks[..., : 2 * size], *blocks.split(size, -1)
    return [part.unbind(1) for part in parts], seen[..., :size].unbind(1)


def _forth(
    product: Callable[[Tensor, Tensor], Any],
    all_seen: Sequence[Tensor],
    parts: list[Sequence[Tensor]],
    states: Sequence[Tensor],
    skip: bool = False,
) -> None:
    """Fill in the gates, n and the state after it, step by step; ``product(seen, block)`` fills a step's block.

    With `skip` that of the first step is there.
    """
    minus_one = states[0].new_full((), -1.0)
    for t, (new, block, rz, reset, update, recurrent) in enumerate(zip(*parts, strict=True)):
        if t or not skip:
            product(all_seen[t], block)
        rz.sigmoid_()
        new.addcmul_(reset, recurrent, value=2.0).sigmoid_()
        torch.lerp(torch.add(minus_one, new, alpha=2.0, out=new), states[t], update, out=states[t + 1])


def _back(
    product: Callable[[Tensor, Tensor], Any],
    by_states: Sequence[Tensor],
    parts: list[Sequence[Tensor]],
    states: Sequence[Tensor],
    of_h: bool,
) -> Tensor | None:
    """Write a step's gradients over its n and its gates, from the last step to the first.

    ``product(carry, block)`` adds a block's gradient by the recurrent weights to the carry, that of the state before.
    Returns the gradient of the first state if `of_h`.
    """
    by_new, scratch = torch.empty_like(states[0]), torch.empty_like(states[0])
    carry = by_states[-1]
    for t, (new, block, _, reset, update, recurrent) in reversed(list(enumerate(zip(*parts, strict=True)))):
        torch.addcmul(carry, carry, update, value=-1.0, out=by_new)
        carry = carry * update
        # The gradient of z before the sigmoid is (h - n) ∘ z ∘ (1 - z) ∘ carry, and (h - n) ∘ z is next h - n.
        torch.mul(torch.sub(states[t + 1], new, out=scratch), by_new, out=update)
        _tanh_backward(by_new, new, grad_input=new)
        torch.mul(new, recurrent, out=scratch)
        torch.mul(new, reset, out=recurrent)
        _sigmoid_backward(scratch, reset, grad_input=reset)
        if t:
            carry.add_(by_states[t - 1])
        if t or of_h:
            product(carry, block)
    return carry if of_h else None


def _empty(like: Tensor, features: int, steps: int, batch: int) -> Tensor:
    """Make an empty ``(features, steps, batch)`` with a gap between rows.

    At distances of powers of two, rows would share the same few lines of the processor's cache.
    """
    return like.new_empty(features, steps * batch + 16)[:, :-16].unflatten(1, (steps, batch))


_tanh_backward = torch.ops.aten.tanh_backward.grad_input
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input


def _joined(w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights of r, z and the recurrent part of n for (state, input, 1), and those of n for (input, 1)."""
    size, inputs = w_hh.shape[1], w_ih.shape[1]
    rz, n = slice(0, 2 * size), slice(2 * size, None)
    weight = w_hh.new_zeros(3 * size, size + inputs + 1)
    weight[:, :size], weight[rz, size:-1], weight[:, -1] = w_hh, w_ih[rz], b_hh
    weight[rz, -1] += b_ih[rz]
    return weight, torch.cat([w_ih[n], b_ih[n, None]], dim=1)


def _parted(weight: Tensor, of_inputs: Tensor) -> tuple[Tensor, ...]:
    """Turn gradients of `_joined`'s results into those of its arguments."""
    size = len(of_inputs)
    joined = torch.cat([weight[: 2 * size, size:], of_inputs])
    return joined[:, :-1], weight[:, :size], joined[:, -1], weight[:, -1]
