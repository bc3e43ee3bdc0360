"""RL²'s network: an encoder of steps, a memory, and two heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarl import gru
from metarl.batch_env import Step
from metarl.distributions import Categorical, DiagonalGaussian, Distribution
from metarl.family import TaskFamily
from metarl.memories import detach, make_memory
from metarl.nets import ActionUnits, Head, StepEncoder, action_size

if TYPE_CHECKING:
    from metarl.agents.rl2 import RL2Config


class RL2Network(nn.Module):
    """Encoder, memory, and two heads that read the memory's output and the encoded step beside it.

    Feeding the step to the heads again is reported to recover much of plain RL²'s weakness (Beck et al. 2023).
    """

    log_std: Tensor
    task_centre: Tensor
    task_scale: Tensor

    def __init__(self, config: RL2Config, family: TaskFamily, tasks: Tensor) -> None:
        """`tasks` ``(N, D)`` are the numbers of training tasks, from which the scale of what is told comes."""
        super().__init__()
        task_size = tasks.shape[1]
        std, mean = torch.std_mean(tasks, dim=0, correction=0)
        self.register_buffer("task_centre", mean)
        self.register_buffer("task_scale", torch.where(std > 1e-6 * mean.abs(), 1.0 / std, 0.0))
        self.encoder = StepEncoder(
            family.observation_space,
            family.action_space,
            config.embed_size,
            transition=config.transition_input,
            follows=config.norm_obs,
            reactive=config.memory == "reactive",
        )
        self.memory = make_memory(config.memory, self.encoder.output_size, config.hidden_size)
        outputs = action_size(family.action_space)
        self.policy = RL2Head(self, config.head_size, outputs, gain=0.01)
        seen = task_size if config.critic == "task" else 0
        self.critic = RL2Head(self, config.head_size, 1, gain=1.0, task_size=seen)
        self.infer = nn.Linear(config.hidden_size, task_size) if config.aux_coef else None
        self.actions = ActionUnits(family.action_space)
        self.discrete = not self.actions.continuous
        if not self.discrete:
            self.log_std = nn.Parameter(torch.full((outputs,), config.init_std).log())

    def told(self, task: Tensor) -> Tensor:
        """The task's numbers ``(B, D)`` with mean 0 and standard deviation 1 over training tasks; constants are 0."""
        return (task - self.task_centre) * self.task_scale

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """An agent from before told tasks were standardised goes on with their plain numbers."""
        if f"{prefix}task_centre" not in state_dict:
            state_dict[f"{prefix}task_centre"] = torch.zeros_like(self.task_centre)
            state_dict[f"{prefix}task_scale"] = torch.ones_like(self.task_scale)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, step: Step, memory: RL2Memory) -> tuple[Tensor, Tensor, RL2Memory]:
        """Many steps: the memory's outputs ``(T, B, H)``, what `heads` takes, and what is carried on."""
        raw, last_obs = self.encoder.raw(step, memory.last_obs)
        output, total, state = self.sequence(raw, memory.state)
        return output, total, RL2Memory(state, last_obs)

    def sequence(self, raw: Tensor, state: Any | None) -> tuple[Tensor, Tensor, Any]:
        """The same from the encoder's ``raw`` vectors and the memory's state, None at a trial's start."""
        state = state if state is None else detach(state)
        return self.memory.readout(self.encoder.embedded(raw), state, self._first_layers())

    def step(self, step: Step, memory: RL2Memory) -> tuple[Tensor, RL2Memory]:
        """One step, for acting: what `heads` takes, and what is carried on."""
        x, last_obs = self.encoder(step, memory.last_obs)
        output, state = self.memory.step(x, memory.state)
        return gru.linear_sum(output, x, self._first_layers()), RL2Memory(state, last_obs)

    def _first_layers(self) -> list[gru.Layer]:
        """The first layers of both heads are one product."""
        heads = self.policy, self.critic
        return [(head.of_memory.weight, head.of_step.weight, head.of_memory.bias) for head in heads]

    def heads(self, total: Tensor, task: Tensor | None) -> tuple[tuple[Tensor, ...], Tensor]:
        """What `distribution` is made of and the critic's value, in its own scale, from the first layers' sums."""
        of_policy, of_critic = total.split([len(head.of_memory.bias) for head in (self.policy, self.critic)], dim=-1)
        outputs, value = self.policy(of_policy), self.critic(of_critic, task).squeeze(-1)
        return (outputs,) if self.discrete else (outputs, self.log_std), value

    def distribution(self, *parameters: Tensor) -> Distribution:
        """The policy, over the network's own actions (see `ActionUnits`)."""
        return Categorical.from_logits(*parameters) if self.discrete else DiagonalGaussian(*parameters)


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
