"""VariBAD's decoder: the likelihood of a trial's rewards, states or task, given the latent task m."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import gymnasium
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarl.core.family import TaskFamily
from metarl.learning.nets import mlp

if TYPE_CHECKING:
    from metarl.agents.varibad.config import VariBADConfig

MOST_CELLS = 4096
"""Largest number of observations for which a decoder may have one output each."""


class Evidence(NamedTuple):
    """The targets of the decoder: H steps of B trials, in the networks' units."""

    obs: Tensor  # (H, B, O) s
    action: Tensor  # (H, B, A) a
    next_obs: Tensor  # (H, B, O) s'
    reward: Tensor  # (H, B) r
    cell: Tensor  # (H, B) int64: the index of the next observation, 0 if observations are not numbered
    mask: Tensor  # (H, B) 0 for padding


class Decoder(nn.Module):
    """p(r | s, a, s', m), p(s' | s, a, m) and p(task | m): those that ``config.decode`` names."""

    def __init__(self, config: VariBADConfig, family: TaskFamily, numbers: tuple[int, ...]) -> None:
        """Make the decoder; `numbers` are the sizes of an observation, an action and a task.

        Raises ValueError if the reward head has one output per observation but observations cannot be numbered.
        """
        super().__init__()
        obs, action, task = numbers
        latent, sizes = config.latent_size, list(config.decoder_sizes)
        self.binary, self.cells = config.reward_likelihood == "bernoulli", None
        self.reward: nn.Module | None = None
        if "reward" in config.decode and config.reward_head == "per_observation":
            self.cells = Cells(family)
            self.reward = mlp([latent, *sizes, self.cells.count], nn.ReLU)
        elif "reward" in config.decode:
            self.reward = StepDecoder(latent, 2 * obs + action, sizes, 1)
        self.state = StepDecoder(latent, obs + action, sizes, obs) if "state" in config.decode else None
        self.task = mlp([latent, *sizes, task], nn.ReLU) if "task" in config.decode else None

    def log_likelihood(self, m: Tensor, evidence: Evidence, task: Tensor) -> Tensor:
        """Return log p(τ:H | m) up to a constant, ``(P, B)``, for m ``(P, B, Z)``: the sum over all decoded steps.

        `task` ``(B, D)`` holds the standardised tasks. All targets that are not binary are Gaussian with variance ½,
        which gives squared errors; those of an observation or a task are averaged over its dimensions.
        """
        total = torch.zeros(m.shape[:2], dtype=m.dtype, device=m.device)
        if self.reward is not None:
            out = self.predict_reward(m, evidence)
            total = total + (self._reward_log_prob(out, evidence.reward) * evidence.mask).sum(1)
        if self.state is not None:
            out = self.state(m, torch.cat([evidence.obs, evidence.action], dim=-1))
            total = total - ((out - evidence.next_obs).square().mean(-1) * evidence.mask).sum(1)
        if self.task is not None:
            total = total - (self.task(m) - task).square().mean(-1)
        return total

    def predict_reward(self, m: Tensor, evidence: Evidence) -> Tensor:
        """Return the mean reward, or the logit of a positive one, at each of H steps: ``(P, H, B)``."""
        assert self.reward is not None
        if self.cells is None:
            steps = torch.cat([evidence.obs, evidence.action, evidence.next_obs], dim=-1)
            shared: Tensor = self.reward(m, steps).squeeze(-1)
            return shared
        every = self.reward(m)  # (P, B, cells)
        chosen: Tensor = every.gather(-1, evidence.cell.T.expand(len(m), -1, -1))
        return chosen.mT

    def expected_reward(self, m: Tensor, evidence: Evidence) -> Tensor:
        """Return the mean reward, or the probability of a positive one, ``(P, H, B)``."""
        out = self.predict_reward(m, evidence)
        return out.sigmoid() if self.binary else out

    def _reward_log_prob(self, out: Tensor, reward: Tensor) -> Tensor:
        """Return log p(r | m) at each step, up to a constant, ``(P, H, B)``; `out` comes from `predict_reward`."""
        if self.binary:
            positive = (reward > 0.0).to(out.dtype)
            return -F.binary_cross_entropy_with_logits(out, positive.expand_as(out), reduction="none")
        return -((out - reward) ** 2)


class StepDecoder(nn.Module):
    """An MLP that combines every m of a trial with every step of that trial."""

    def __init__(self, latent: int, inputs: int, sizes: list[int], outputs: int) -> None:
        super().__init__()
        # Summing two products equals one product with the concatenated inputs, which would be P × H times as large.
        self.of_latent = nn.Linear(latent, sizes[0])
        self.of_step = nn.Linear(inputs, sizes[0], bias=False)
        self.rest = mlp([*sizes, outputs], nn.ReLU)

    def forward(self, m: Tensor, steps: Tensor) -> Tensor:
        """Return ``(P, H, B, outputs)`` for m ``(P, B, Z)`` and steps ``(H, B, F)``."""
        out: Tensor = self.rest(F.relu(self.of_latent(m)[:, None] + self.of_step(steps)))
        return out


class Cells(nn.Module):
    """A numbering of a family's observations, which must be whole numbers within bounds."""

    low: Tensor
    sizes: Tensor
    strides: Tensor

    def __init__(self, family: TaskFamily) -> None:
        """Number the observations. Raises ValueError if there are too many, or the space has no bounds."""
        super().__init__()
        space = family.observation_space
        low, high = (torch.as_tensor(bound).flatten().to(torch.float64) for bound in (space.low, space.high))
        sizes = high.floor() - low.ceil() + 1.0
        count = float(sizes.prod()) if isinstance(space, gymnasium.spaces.Box) else 0.0
        if not 1.0 <= count <= MOST_CELLS:
            raise ValueError(
                f"reward_head per_observation needs at most {MOST_CELLS} different observations, such as the cells of "
                f"a grid, and {family!r} has {space}: choose shared."
            )
        self.count = int(count)
        self.register_buffer("low", low.ceil().to(torch.float32), persistent=False)
        self.register_buffer("sizes", sizes.to(torch.int64), persistent=False)
        strides = sizes.flip(0).cumprod(0).flip(0) / sizes
        self.register_buffer("strides", strides.to(torch.int64), persistent=False)

    def forward(self, obs: Tensor) -> Tensor:
        """Return the indices of observations ``(…, O)``, int64 ``(…)``."""
        place = (obs - self.low).round().to(torch.int64)
        return (torch.minimum(place.clamp_min(0), self.sizes - 1) * self.strides).sum(-1)
