"""RL²'s network: a step encoder, a memory, and two heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarl.agents.rl2.hyper import HyperHeads
from metarl.core.batch_env import Step
from metarl.core.distributions import Distribution, make_distribution
from metarl.core.family import TaskFamily
from metarl.core.tree import detach
from metarl.core.units import ActionUnits, action_size
from metarl.learning.encoder import StepEncoder
from metarl.learning.memories import make_memory
from metarl.learning.nets import Head, linear

if TYPE_CHECKING:
    from metarl.agents.rl2 import RL2Config


class RL2Network(nn.Module):
    """An encoder, a memory, and two heads that read the memory's output and the encoded step.

    Beck et al. 2023 report that feeding the step to the heads again makes up for much of plain RL²'s weakness. With
    ``heads: hyper`` the heads read only the step, with weights generated from the memory (`HyperHeads`).
    """

    task_centre: Tensor
    task_scale: Tensor

    def __init__(self, config: RL2Config, family: TaskFamily, tasks: Tensor) -> None:
        """Make the network. The training tasks `tasks` ``(N, D)`` standardise the task input by their mean and std."""
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
            parts=family.observation_parts,
        )
        self.memory = make_memory(config.memory, self.encoder.output_size, config.hidden_size)
        outputs = action_size(family.action_space)
        seen, timed = 0 if config.critic == "history" else task_size, config.critic == "task_and_time"
        self.hyper: HyperHeads | None = None
        if config.heads == "hyper":
            sizes = self.memory.hidden_size, self.encoder.output_size, outputs
            hidden, size = config.head_size, config.hyper_size
            self.hyper = HyperHeads(*sizes, hidden=hidden, size=size, task_size=seen, timed=timed)
        else:
            self.policy = RL2Head(self, config.head_size, outputs, gain=0.01)
            self.critic = RL2Head(self, config.head_size, 1, gain=1.0, task_size=seen, timed=timed)
        self.infer = nn.Linear(config.hidden_size, task_size) if config.aux_coef else None
        self.actions = ActionUnits(family.action_space)
        self.log_std: nn.Parameter | None = None
        if self.actions.continuous:
            self.log_std = nn.Parameter(torch.full((outputs,), config.init_std).log())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Load a state. A state from before tasks were standardised has no scale of tasks and leaves them unscaled."""
        if f"{prefix}task_centre" not in state_dict:
            state_dict[f"{prefix}task_centre"] = torch.zeros_like(self.task_centre)
            state_dict[f"{prefix}task_scale"] = torch.ones_like(self.task_scale)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def step(self, step: Step, memory: RL2Memory) -> tuple[Distribution, Tensor, RL2Memory]:
        """Return the policy for one step, the critic's value ``(B,)``, and the memory after the step."""
        output, x, memory = self.read(step, memory)
        policy, value = self.heads(output, x, None)
        return policy, value, memory

    def initial(self, rows: int, device: torch.device | str = "cpu") -> RL2Memory:
        """Return the memory before a trial."""
        return RL2Memory(self.memory.initial(rows, device), self.encoder.initial(rows))

    def read(self, step: Step, memory: RL2Memory) -> tuple[Tensor, Tensor, RL2Memory]:
        """Return what the heads read at one step, ``(B, H)`` and ``(B, E)``, and the memory after the step."""
        raw, last_obs = self.encoder.raw(step, memory.last_obs)
        x = self.embed(raw)
        output, state = self.memory.step(x, memory.state)
        return output, x, RL2Memory(state, last_obs)

    def memory_features(self, step: Step, memory: RL2Memory) -> dict[str, Tensor]:
        """Return the memory after a step as vectors (`metarl.learning.memories.Memory.vectors`)."""
        raw, _ = self.encoder.raw(step, memory.last_obs)
        return self.memory.vectors(self.embed(raw), memory.state)

    def sequence(self, raw: Tensor, state: Any | None) -> tuple[Tensor, Tensor, Any]:
        """Run the memory over encoded steps ``(T, B, F)``, starting from `state` (None: the start of a trial).

        Returns the memory's outputs ``(T, B, H)``, its inputs ``(T, B, E)`` (the embedded steps), and its state after
        the last step. No gradient flows into the given state.
        """
        x = self.embed(raw)
        output, state = self.memory.sequence(x, state if state is None else detach(state))
        return output, x, state

    def heads(
        self, output: Tensor, x: Tensor, task: Tensor | None, share: Tensor | None = None
    ) -> tuple[Distribution, Tensor]:
        """Return the policy, in the network's own action units (`ActionUnits`), and the standardised value ``(…)``.

        Both heads read the memory's output ``(…, H)`` and the embedded step ``(…, E)``. With ``critic: task`` the
        critic also reads the task ``(B, D)``, and with ``critic: task_and_time`` also `share` ``(…)``, the fraction of
        the trial that is over.
        """
        if self.hyper is not None:
            outputs, value = self.hyper(output, x, self._told(task), share)
            return make_distribution(outputs, self.log_std, self.actions.sizes), value
        heads = self.policy, self.critic  # compute the first layers of both in one matrix product
        bias = torch.cat([head.of_memory.bias for head in heads])
        total = linear(output, torch.cat([head.of_memory.weight for head in heads]), bias)
        total = total + linear(x, torch.cat([head.of_step.weight for head in heads]))
        of_policy, of_critic = total.split([len(head.of_memory.bias) for head in heads], dim=-1)
        outputs, value = self.policy(of_policy), self.critic(of_critic, self._told(task), share).squeeze(-1)
        return make_distribution(outputs, self.log_std, self.actions.sizes), value

    def embed(self, raw: Tensor) -> Tensor:
        """Return the memory's inputs ``(…, E)`` for encoded steps ``(…, F)``."""
        encoder = self.encoder
        seen = raw if encoder.images is None else encoder.images(raw)
        return seen if encoder.embed is None else F.relu(encoder.embed(seen))

    def _told(self, task: Tensor | None) -> Tensor | None:
        """Standardise the task by the training tasks; a feature that never varies becomes 0."""
        return None if task is None else (task - self.task_centre) * self.task_scale


class RL2Head(nn.Module):
    """A linear layer, or a ReLU layer and a linear one, on (memory output, embedded step[, task[, time]])."""

    def __init__(
        self, net: RL2Network, hidden: int, outputs: int, gain: float, task_size: int = 0, timed: bool = False
    ) -> None:
        super().__init__()
        width = hidden or outputs
        first = 1.0 if hidden else gain
        # Summing one product per input equals one product with the concatenated inputs, and saves the concatenation.
        self.of_memory = Head(net.memory.hidden_size, width, first)
        self.of_step = nn.Linear(net.encoder.output_size, width, bias=False)
        nn.init.orthogonal_(self.of_step.weight, first)
        self.of_task = nn.Sequential(nn.Linear(task_size, 64), nn.ReLU(), nn.Linear(64, width)) if task_size else None
        self.of_time = nn.Linear(1, width, bias=False) if timed else None
        self.last = Head(hidden, outputs, gain) if hidden else None

    def forward(self, total: Tensor, task: Tensor | None = None, share: Tensor | None = None) -> Tensor:
        """Finish the head; `total` is the first layer's sum for memory output and step (see `RL2Network.heads`)."""
        if self.of_task is not None and task is not None:
            total = total + self.of_task(task)
        if self.of_time is not None and share is not None:
            total = total + self.of_time(share[..., None])
        return total if self.last is None else self.last(F.relu(total))


class RL2Memory(NamedTuple):
    """The agent's memory between two steps."""

    state: Any  # the state of `RL2Network.memory`
    last_obs: Tensor  # (B, O), or (B, 0) without `transition_input`
