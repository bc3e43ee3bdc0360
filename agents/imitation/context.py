"""DPT's context by episodes: what earlier episodes showed and the current observation decide (Lee et al. 2023).

The memory reads every step, as RL²'s does, but the policy reads the memory only as it was at the first step of the
current episode, and of the current step only the observation, which the paper calls the query.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarl.agents.rl2.network import RL2Network
from metarl.core.batch_env import Step


class DPTMemory(NamedTuple):
    """The memory between two steps of a policy with ``context: episode``."""

    state: Any  # the state of `RL2Network.memory`
    last_obs: Tensor  # (B, O), or (B, 0) without `transition_input`
    context: Tensor  # (B, H) the memory's output at the first step of the current episode


class EpisodicNetwork(RL2Network):
    """RL²'s network whose heads read the memory of the episode's first step, and of each step only the observation."""

    def initial(self, rows: int, device: torch.device | str = "cpu") -> Any:
        """Return the memory before a trial."""
        state, last_obs = super().initial(rows, device)
        return DPTMemory(state, last_obs, torch.zeros(rows, self.memory.hidden_size, device=device))

    def read(self, step: Step, memory: Any) -> tuple[Tensor, Tensor, Any]:
        """Return the episode's context ``(B, H)``, the query ``(B, E)``, and the memory after the step."""
        raw, last_obs = self.encoder.raw(step, memory.last_obs)
        output, state = self.memory.step(self.embed(raw), memory.state)
        context = torch.where(self.encoder.begins_episode(raw)[:, None], output, memory.context)
        return context, self.embed(self.encoder.only_observation(raw)), DPTMemory(state, last_obs, context)

    def sequence(self, raw: Tensor, state: Any | None) -> tuple[Tensor, Tensor, Any]:
        """Return contexts and queries of whole trials of encoded steps ``(T, B, F)``, and the memory's last state."""
        output, _, state = super().sequence(raw, state)
        time = torch.arange(len(raw), device=raw.device)[:, None]
        first = torch.where(self.encoder.begins_episode(raw), time, 0).cummax(0).values
        context = output.gather(0, first[..., None].expand_as(output))
        return context, self.embed(self.encoder.only_observation(raw)), state
