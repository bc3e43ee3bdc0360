"""R2D2's networks, online and target: each has a step encoder, a memory, and a dueling head."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarl.core.batch_env import Step
from metarl.core.family import TaskFamily
from metarl.core.units import ActionUnits, action_size
from metarl.learning.encoder import StepEncoder
from metarl.learning.memories import make_memory, sequences
from metarl.learning.nets import Head, linear

if TYPE_CHECKING:
    from metarl.agents.r2d2 import R2D2Config


class R2D2Memory(NamedTuple):
    """The agent's memory between two steps."""

    state: Any  # the state of `QNetwork.memory`
    last_obs: Tensor  # (B, O), or (B, 0) without `transition_input`
    epsilon: Tensor  # (B,) float32: the row's ε


class QNetwork(nn.Module):
    """An encoder, a memory, and a head that reads the memory's output and the encoded step."""

    def __init__(self, config: R2D2Config, family: TaskFamily) -> None:
        super().__init__()
        self.encoder = StepEncoder(
            family.observation_space,
            family.action_space,
            config.embed_size,
            transition=config.transition_input,
            follows=config.norm_obs,
            reactive=config.memory == "reactive",
            parts=family.observation_parts,
        )
        self.memory = make_memory(config.memory, self.encoder.output_size, config.hidden_size)
        self.head = DuelingHead(
            self.memory.hidden_size, self.encoder.output_size, config.head_size, action_size(family.action_space)
        )
        self.actions = ActionUnits(family.action_space)

    def step(self, step: Step, state: Any, last_obs: Tensor) -> tuple[Tensor, Any, Tensor]:
        """Return all action values ``(B, A)`` for one step, the memory's state after it, and its observation."""
        raw, last_obs = self.encoder.raw(step, last_obs)
        x = self.embed(raw)
        output, state = self.memory.step(x, state)
        return self.head(output, x), state, last_obs

    def memory_features(self, step: Step, state: Any, last_obs: Tensor) -> dict[str, Tensor]:
        """Return the memory after a step as vectors (`metarl.learning.memories.Memory.vectors`)."""
        raw, _ = self.encoder.raw(step, last_obs)
        return self.memory.vectors(self.embed(raw), state)

    def after(self, raw: Tensor, state: Any | None) -> Any:
        """Return the memory's state after encoded steps ``(T, B, F)``; `state` None is the start of a trial."""
        return self.memory.sequence(self.embed(raw), state)[1]

    def embed(self, raw: Tensor) -> Tensor:
        """Return the memory's inputs for encoded steps ``(…, F)``."""
        encoder = self.encoder
        seen = raw if encoder.images is None else encoder.images(raw)
        return seen if encoder.embed is None else F.relu(encoder.embed(seen))


class DuelingHead(nn.Module):
    """The value of the state plus the advantages of the actions, with mean 0 (Wang et al. 2016, "Dueling", eq. 9).

    Both have a hidden ReLU layer, on (memory output, embedded step).
    """

    def __init__(self, memory_size: int, step_size: int, hidden: int, actions: int) -> None:
        super().__init__()
        # The hidden layers of both share one product per input, and the sum of these products avoids a concatenation.
        self.of_memory = Head(memory_size, 2 * hidden, 1.0)
        self.of_step = nn.Linear(step_size, 2 * hidden, bias=False)
        nn.init.orthogonal_(self.of_step.weight, 1.0)
        self.value = Head(hidden, 1, 0.01)
        self.advantage = Head(hidden, actions, 0.01)

    def forward(self, output: Tensor, x: Tensor) -> Tensor:
        """Return the action values ``(…, A)`` for the memory's output ``(…, H)`` and the embedded step ``(…, E)``."""
        hidden = F.relu(self.of_memory(output) + linear(x, self.of_step.weight))
        of_value, of_advantage = hidden.chunk(2, dim=-1)
        advantage = self.advantage(of_advantage)
        q: Tensor = self.value(of_value) + advantage - advantage.mean(-1, keepdim=True)
        return q


class R2D2Networks(nn.Module):
    """The online network, which acts and learns, and the target network, an earlier copy of it."""

    def __init__(self, config: R2D2Config, family: TaskFamily) -> None:
        super().__init__()
        self.online = QNetwork(config, family)
        self.target = copy.deepcopy(self.online).requires_grad_(False)

    def values(self, raw: Tensor, states: Sequence[Any]) -> list[Tensor]:
        """Return the online and the target network's values ``(T, B, A)`` for encoded steps ``(T, B, F)``.

        `states` are those of both memories before the first step; None is the start of a trial. Both memories are run
        in one pass over time.
        """
        networks = self.online, self.target
        steps = [network.embed(raw) for network in networks]
        outputs = sequences([network.memory for network in networks], steps, states)
        return [network.head(output, x) for network, (output, _), x in zip(networks, outputs, steps, strict=True)]

    @torch.no_grad()
    def copy_to_target(self) -> None:
        """Copy the online network to the target network, in place because a CUDA graph reads it."""
        for old, new in zip(self.target.parameters(), self.online.parameters(), strict=True):
            old.copy_(new)
