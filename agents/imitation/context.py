"""DPT's context by episodes: what earlier episodes showed and the current observation decide (Lee et al. 2023).

The memory reads every step, as RL²'s does, but the policy reads the memory only as it was at the first step of the
current episode, and of the current step only the observation, which the paper calls the query.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarl.agents.rl2.acting import ActingRL2
from metarl.agents.rl2.network import RL2Network
from metarl.core.batch_env import Step
from metarl.core.distributions import Distribution, make_distribution


class DPTMemory(NamedTuple):
    """The memory between two steps of a policy with ``context: episode``."""

    state: Any  # the state of `RL2Network.memory`
    last_obs: Tensor  # (B, O), or (B, 0) without `transition_input`
    context: Tensor  # (B, H) the memory's output at the first step of the current episode


def at_step(net: RL2Network, step: Step, memory: DPTMemory) -> tuple[Tensor, Tensor, DPTMemory]:
    """Return the inputs of the policy's head at a step, ``(B, H)`` and ``(B, E)``, and the memory after it."""
    raw, last_obs = net.encoder.raw(step, memory.last_obs)
    output, state = net.memory.step(net.embed(raw), memory.state)
    context = torch.where(net.encoder.begins_episode(raw)[:, None], output, memory.context)
    return context, net.embed(net.encoder.only_observation(raw)), DPTMemory(state, last_obs, context)


def in_sequence(net: RL2Network, raw: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same inputs ``(T, B, H)`` and ``(T, B, E)`` for whole trials of encoded steps ``(T, B, F)``.

    `output` ``(T, B, H)`` is that of the memory at every step.
    """
    time = torch.arange(len(raw), device=raw.device)[:, None]
    first = torch.where(net.encoder.begins_episode(raw), time, 0).cummax(0).values
    context = output.gather(0, first[..., None].expand_as(output))
    return context, net.embed(net.encoder.only_observation(raw))


class ActingDPT(ActingRL2):
    """The encoder, the memory and the policy's head of a policy with ``context: episode``."""

    def initial(self, rows: int) -> Any:
        state, last_obs = super().initial(rows)
        return DPTMemory(state, last_obs, torch.zeros(rows, self.net.memory.hidden_size))

    def forward(self, step: Step, memory: Any) -> tuple[Distribution, Any]:
        context, query, memory = at_step(self.net, step, memory)
        head = self.net.policy
        outputs = head(head.of_memory(context) + head.of_step(query))
        return make_distribution(outputs, self.net.log_std, self.actions.sizes), memory
