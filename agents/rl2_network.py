"""RL²'s network: an encoder of steps, a memory, and two heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarl import gru
from metarl.batch_env import Step
from metarl.distributions import Categorical, DiagonalGaussian, Distribution
from metarl.family import TaskFamily
from metarl.memories import detach, make_memory
from metarl.nets import Head, StepEncoder, action_size

if TYPE_CHECKING:
    from metarl.agents.rl2 import RL2Config


class RL2Network(nn.Module):
    """Encoder, memory, and two heads that read the memory's output and the encoded step beside it.

    Feeding the step to the heads again is reported to recover much of plain RL²'s weakness (Beck et al. 2023).
    """

    centre: Tensor
    half_range: Tensor
    log_std: Tensor

    def __init__(self, config: RL2Config, family: TaskFamily, task_size: int) -> None:
        super().__init__()
        self.encoder = StepEncoder(
            family.observation_space,
            family.action_space,
            config.embed_size,
            config.reward_input_scale,
            config.transition_input,
        )
        self.memory = make_memory(config.memory, self.encoder.output_size, config.hidden_size)
        outputs = action_size(family.action_space)
        self.policy = RL2Head(self, config.head_size, outputs, gain=0.01)
        seen = task_size if config.critic == "task" else 0
        self.critic = RL2Head(self, config.head_size, 1, gain=1.0, task_size=seen)
        self.infer = nn.Linear(config.hidden_size, task_size) if config.aux_coef else None
        self.discrete = True
        if isinstance(family.action_space, gymnasium.spaces.Box):
            self.discrete = False
            low, high = torch.as_tensor(family.action_space.low), torch.as_tensor(family.action_space.high)
            self.register_buffer("centre", (low + high) / 2, persistent=False)
            self.register_buffer("half_range", (high - low) / 2, persistent=False)
            self.log_std = nn.Parameter(torch.full((outputs,), config.init_std).log())

    def forward(self, step: Step, memory: RL2Memory) -> tuple[Tensor, Tensor, RL2Memory]:
        """Many steps: the memory's outputs ``(T, B, H)``, the encoded steps, and what is carried on."""
        raw, last_obs = self.encoder.raw(step, memory.last_obs)
        output, x, state = self.sequence(raw, memory.state)
        return output, x, RL2Memory(state, last_obs)

    def sequence(self, raw: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
        """The same from the encoder's ``raw`` vectors: outputs, encoded steps, the next state."""
        x = self.encoder.embedded(raw)
        output, state = self.memory.sequence(x, detach(state))
        return output, x, state

    def heads(self, output: Tensor, x: Tensor, task: Tensor | None) -> tuple[Distribution, Tensor]:
        """The policy and the critic's value, in its own scale. The first layers of both are one product."""
        heads = self.policy, self.critic
        total = gru.linear_sum(
            output,
            torch.cat([head.of_memory.weight for head in heads]),
            x,
            torch.cat([head.of_step.weight for head in heads]),
            torch.cat([head.of_memory.bias for head in heads]),
        )
        of_policy, of_critic = total.split([len(head.of_memory.bias) for head in heads], dim=-1)
        return self.distribution(self.policy(of_policy)), self.critic(of_critic, task).squeeze(-1)

    def distribution(self, logits: Tensor) -> Distribution:
        if self.discrete:
            return Categorical.from_logits(logits)
        # The network works in units of half the action range, whatever the range is.
        return DiagonalGaussian(self.centre + self.half_range * logits, self.log_std + self.half_range.log())


class RL2Head(nn.Module):
    """A linear layer, or a hidden ReLU layer and a linear one, over (memory output, encoded step[, task])."""

    def __init__(self, net: RL2Network, hidden: int, outputs: int, gain: float, task_size: int = 0) -> None:
        super().__init__()
        width = hidden or outputs
        first = 1.0 if hidden else gain
        # Three products added up are one product with the concatenation, which need not be made.
        self.of_memory = Head(net.memory.hidden_size, width, first)
        self.of_step = nn.Linear(net.encoder.output_size, width, bias=False)
        nn.init.orthogonal_(self.of_step.weight, first)
        self.of_task = nn.Sequential(nn.Linear(task_size, 64), nn.ReLU(), nn.Linear(64, width)) if task_size else None
        self.last = Head(hidden, outputs, gain) if hidden else None

    def forward(self, total: Tensor, task: Tensor | None = None) -> Tensor:
        """The head's output from the sum of its products with memory and step, which `RL2Network.heads` makes."""
        if self.of_task is not None and task is not None:
            total = total + self.of_task(task)
        return total if self.last is None else self.last(F.relu(total))


class RL2Memory(NamedTuple):
    """What is carried from step to step."""

    state: Any  # of the recurrent memory
    last_obs: Tensor  # (B, O), or (B, 0) without `transition_input`
