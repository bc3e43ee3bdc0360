"""Memories with a common interface.

``make_memory(kind, input_size, hidden_size)`` makes a memory, which has three methods:

- ``initial(batch, device)``: the empty state at the start of a trial;
- ``step(x (B, F), state) -> (output (B, H), state)``: one step, for acting;
- ``sequence(x (T, B, F), state) -> (output (T, B, H), state)``: many steps, for learning; None is the empty state.

Single steps give the same outputs as one sequence. There are no resets: a trial starts with an empty memory, which is
kept through all its episodes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarl.core.errors import unknown
from metarl.core.tree import features, leaves
from metarl.fast.twins import twin
from metarl.learning.nets import mlp

State = Any  # a tensor, or a tuple of tensors


class Memory(nn.Module, ABC):
    """Base class of memories; the module's docstring describes the interface."""

    grows: ClassVar[bool] = False
    """True if the size of the state grows with the number of steps."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size

    @abstractmethod
    def initial(self, batch: int, device: torch.device | str = "cpu") -> State:
        """Return the empty state of `batch` rows."""

    @abstractmethod
    def sequence(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Return the outputs ``(T, B, H)`` and the state after the last step, starting from `state`."""

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the output ``(B, H)`` and the next state."""
        output, state = self.sequence(x[None], state)
        return output[0], state

    def vectors(self, x: Tensor, state: State) -> dict[str, Tensor]:
        """Return the memory after a step as vectors ``(B, F)``: the flattened ``state``, and the ``output``.

        A state that grows with the trial is left out, and so is an output that equals the state.
        """
        output, state = self.step(x, state)
        if isinstance(state, Tensor) and state.shape == output.shape:
            return {"state": output}  # GRU and RNN
        fixed = {} if self.grows or not leaves(state) else {"state": features(state)}
        return fixed | {"output": output}


@twin("gru")
def gru(x: Tensor, state: Tensor | None, cell: nn.GRU) -> Tensor:
    """Return all states ``(T, B, H)`` of a cell, for inputs ``(T, B, F)`` and an initial state (None: zeros)."""
    output: Tensor = cell(x, state if state is None else state[None].contiguous())[0]
    return output


@twin("grus")
def grus(xs: Sequence[Tensor], states: Sequence[Tensor | None], cells: Sequence[nn.GRU]) -> list[Tensor]:
    """Apply `gru` to several cells, each with its own inputs and state."""
    return [gru(x, state, cell) for x, state, cell in zip(xs, states, cells, strict=True)]


@twin("gru_step")
def gru_step(x: Tensor, state: Tensor, cell: nn.GRU) -> Tensor:
    """Return the next state ``(B, H)`` of a cell, for input ``(B, F)`` and state ``(B, H)``."""
    output: Tensor = cell(x[None], state[None].contiguous())[0][0]
    return output


class GRU(Memory):
    """Gated recurrent unit (Cho et al. 2014)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.cell = nn.GRU(input_size, hidden_size)
        _orthogonal(self.cell)

    def initial(self, batch: int, device: torch.device | str = "cpu") -> Tensor:
        return torch.zeros(batch, self.hidden_size, device=device, dtype=_dtype(self))

    def sequence(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        output = gru(x, state, self.cell)
        return output, output[-1]

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = gru_step(x, state, self.cell)
        return state, state


def sequences(
    memories: Sequence[Memory], xs: Sequence[Tensor], states: Sequence[State | None]
) -> list[tuple[Tensor, State]]:
    """Apply `Memory.sequence` to several memories; GRUs are run in a single pass over time.

    Gradients can be computed only once, for all memories together.
    """
    cells = [memory.cell for memory in memories if isinstance(memory, GRU)]
    if len(cells) == len(memories):
        return [(output, output[-1]) for output in grus(tuple(xs), states, cells)]
    return [memory.sequence(x, state) for memory, x, state in zip(memories, xs, states, strict=True)]


class LSTM(Memory):
    """Long short-term memory (Hochreiter & Schmidhuber 1997)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.cell = nn.LSTM(input_size, hidden_size)
        _orthogonal(self.cell)

    def initial(self, batch: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        zeros = torch.zeros(batch, self.hidden_size, device=device, dtype=_dtype(self))
        return zeros, zeros

    def sequence(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        before = None if state is None else (state[0][None].contiguous(), state[1][None].contiguous())
        output, (hidden, cell) = self.cell(x, before)
        return output, (hidden[0], cell[0])


class RNN(Memory):
    """Elman network with tanh units (Elman 1990)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.cell = nn.RNN(input_size, hidden_size)
        _orthogonal(self.cell)

    def initial(self, batch: int, device: torch.device | str = "cpu") -> Tensor:
        return torch.zeros(batch, self.hidden_size, device=device, dtype=_dtype(self))

    def sequence(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        output, last = self.cell(x, None if state is None else state[None].contiguous())
        return output, last[0]


class Feedforward(Memory):
    """No memory, only a tanh layer: a control that adapts only as far as its inputs contain the last step."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.layer = nn.Linear(input_size, hidden_size)

    def initial(self, batch: int, device: torch.device | str = "cpu") -> tuple[()]:
        return ()

    def sequence(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        return torch.tanh(self.layer(x)), ()


class Transformer(Memory):
    """Causal transformer (Vaswani et al. 2017) with layer norm before each block and sinusoidal positions.

    The state contains the keys and values of all past steps of the trial, so acting at step t takes O(t) time.
    """

    grows = True

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 2, num_heads: int = 4) -> None:
        super().__init__(input_size, hidden_size)
        if hidden_size % (2 * num_heads):
            raise ValueError(f"A transformer's hidden_size must be a multiple of {2 * num_heads}, got {hidden_size}.")
        self.num_heads = num_heads
        self.input = nn.Linear(input_size, hidden_size)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_size) for _ in range(2 * num_layers + 1))
        self.qkv = nn.ModuleList(nn.Linear(hidden_size, 3 * hidden_size) for _ in range(num_layers))
        self.out = nn.ModuleList(nn.Linear(hidden_size, hidden_size) for _ in range(num_layers))
        self.feed = nn.ModuleList(mlp([hidden_size, 2 * hidden_size, hidden_size], nn.GELU) for _ in range(num_layers))

    def initial(self, batch: int, device: torch.device | str = "cpu") -> tuple[Tensor, ...]:
        shape = (batch, self.num_heads, 0, self.hidden_size // self.num_heads)
        empty = torch.zeros(shape, device=device, dtype=_dtype(self))
        return (empty,) * (2 * len(self.qkv))

    def sequence(self, x: Tensor, state: tuple[Tensor, ...] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        state = self.initial(x.shape[1], x.device) if state is None else state
        steps, past = x.shape[0], state[0].shape[2]
        h = self.input(x).transpose(0, 1)  # (B, T, H)
        h = h + _positions(past, steps, self.hidden_size, h)
        # Step t of this call sees all past steps and steps 0 … t of this call.
        visible = torch.ones(steps, past + steps, dtype=torch.bool, device=x.device).tril(past)
        new_state: list[Tensor] = []
        for n, (qkv, out, feed) in enumerate(zip(self.qkv, self.out, self.feed, strict=True)):
            q, k, v = (
                part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, T, H / heads)
                for part in qkv(self.norms[2 * n](h)).chunk(3, dim=-1)
            )
            k, v = torch.cat([state[2 * n], k], dim=2), torch.cat([state[2 * n + 1], v], dim=2)
            new_state += [k, v]
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
            h = h + out(attended.transpose(1, 2).flatten(2))
            h = h + feed(self.norms[2 * n + 1](h))
        return self.norms[-1](h).transpose(0, 1), tuple(new_state)


class FastWeights(Memory):
    """Fast weights (Schmidhuber 1992) as linear attention: a table that is written and read by content.

    At every step each head adds ``key ⊗ (value, 1)`` to its table and reads the table with a query. Keys and queries
    are softmax features of the input (Irie et al. 2021); values come from a hidden ReLU layer. The head returns
    ``Σ weight·value / (1 + Σ weight)``, which has the form of a posterior mean with a prior worth one observation, and
    the logarithm of ``1 + Σ weight``, minus 1. This suits inputs that contain the whole last step (state, action,
    reward): the reward of an action in the current state is a single look-up, while a gated unit has to learn the
    binding (docs/findings.md, 4). A sequence takes two matrix products over ``(T, T)``; acting takes constant time per
    step.
    """

    def __init__(self, input_size: int, hidden_size: int, num_heads: int = 4, key_size: int = 16) -> None:
        super().__init__(input_size, hidden_size)
        if hidden_size % num_heads or hidden_size < 2 * num_heads:
            raise ValueError(
                f"The hidden_size of fast weights must be a multiple of {num_heads}, at least {2 * num_heads}, "
                f"got {hidden_size}."
            )
        self.num_heads, self.key_size, self.value_size = num_heads, key_size, hidden_size // num_heads - 1
        self.key = nn.Linear(input_size, num_heads * key_size)
        self.query = nn.Linear(input_size, num_heads * key_size)
        self.hidden = nn.Linear(input_size, hidden_size)
        self.value = nn.Linear(hidden_size, num_heads * self.value_size)
        # A large gain makes the softmax selective from the start, so that different inputs get different keys.
        nn.init.orthogonal_(self.key.weight, 3.0)
        nn.init.orthogonal_(self.query.weight, 3.0)

    def initial(self, batch: int, device: torch.device | str = "cpu") -> Tensor:
        shape = (batch, self.num_heads, self.key_size, self.value_size + 1)
        return torch.zeros(shape, device=device, dtype=_dtype(self))

    def sequence(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        state = self.initial(x.shape[1], x.device) if state is None else state
        key, query, value = self._write_and_ask(x)
        # A step reads the initial table, what the steps before it wrote, and what it writes itself.
        before = torch.ones(len(x), len(x), device=x.device, dtype=x.dtype).tril()  # faster than `tril` of the product
        output = self._answer(query @ state + (query @ key.transpose(-1, -2) * before) @ value)
        return output.permute(2, 0, 1, 3).flatten(2), state + key.transpose(-1, -2) @ value

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        key, query, value = (part.squeeze(2) for part in self._write_and_ask(x[None]))  # (B, heads, size)
        state = torch.addcmul(state, key[..., None], value[..., None, :])
        return self._answer((query[..., None] * state).sum(-2)).flatten(1), state

    def _write_and_ask(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return keys, queries and values of the steps ``(T, B, F)``, each ``(B, heads, T, size)``."""
        key = self._heads(self.key(x), self.key_size).softmax(-1)
        query = self._heads(self.query(x), self.key_size).softmax(-1) * math.sqrt(self.key_size)
        value = self._heads(self.value(F.relu(self.hidden(x))), self.value_size)
        return key, query, F.pad(value, (0, 1), value=1.0)

    def _answer(self, read: Tensor) -> Tensor:
        total, weight = torch.split(read, [self.value_size, 1], dim=-1)
        return torch.cat([total / (1.0 + weight), torch.log1p(weight) - 1.0], dim=-1)

    def _heads(self, x: Tensor, size: int) -> Tensor:
        """Rearrange ``(T, B, heads × size)`` to ``(B, heads, T, size)``."""
        return torch.unflatten(x, -1, (self.num_heads, size)).permute(1, 2, 0, 3)


MEMORIES: dict[str, type[Memory]] = {
    "gru": GRU,
    "lstm": LSTM,
    "rnn": RNN,
    "transformer": Transformer,
    "fast_weights": FastWeights,
    "none": Feedforward,
    "reactive": Feedforward,  # differs from "none" only in its inputs
}


def make_memory(kind: str, input_size: int, hidden_size: int) -> Memory:
    """Make a memory of one of the kinds in `MEMORIES`. Raises ValueError for an unknown kind."""
    if kind not in MEMORIES:
        raise ValueError(unknown("memory", kind, MEMORIES))
    return MEMORIES[kind](input_size, hidden_size)


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype


def _positions(first: int, steps: int, size: int, like: Tensor) -> Tensor:
    time = torch.arange(first, first + steps, device=like.device, dtype=like.dtype)[:, None]
    rate = torch.exp(torch.arange(0, size, 2, device=like.device, dtype=like.dtype) * (-math.log(10000.0) / size))
    return torch.cat([torch.sin(time * rate), torch.cos(time * rate)], dim=-1)


def _orthogonal(cell: nn.RNNBase) -> None:
    """Initialise a cell: orthogonal recurrent weights gate by gate, Xavier input weights, zero biases."""
    for name, parameter in cell.named_parameters():
        if "weight_hh" in name:
            for gate in torch.split(parameter.data, cell.hidden_size):
                nn.init.orthogonal_(gate)
        elif "weight_ih" in name:
            nn.init.xavier_uniform_(parameter)
        else:
            nn.init.zeros_(parameter)
