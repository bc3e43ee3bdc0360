"""VariBAD's networks: a recurrent encoder, which is the belief, a decoder, and the MLPs of policy and critic."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import gymnasium
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarl.agents.belief.network import BeliefNetwork
from metarl.agents.varibad.decoder import Decoder
from metarl.agents.varibad.elbo import Gaussian
from metarl.core.batch_env import Step
from metarl.core.family import TaskFamily
from metarl.learning.encoder import Scaling, StepEncoder
from metarl.learning.memories import GRU

if TYPE_CHECKING:
    from metarl.agents.varibad.config import VariBADConfig


class LearnedBelief(nn.Module):
    """The encoder q(m | τ:t): a GRU over the steps so far, whose state gives the mean and log-variance of m.

    It has the methods of an exact belief (`metarl.core.beliefs.belief.Belief`); a belief is the GRU's state ``(B, H)``.
    """

    def __init__(self, config: VariBADConfig, family: TaskFamily) -> None:
        """Make the encoder. Raises ValueError for a family that shows images."""
        super().__init__()
        self.steps = StepEncoder(
            family.observation_space, family.action_space, follows=config.norm_obs, parts=family.observation_parts
        )
        if self.steps.images is not None:
            raise ValueError(f"VariBAD needs vector observations, and {family!r} has images: choose RL2, for example.")
        self.inputs = [self.steps.size, self.steps.num_actions, 2]  # observation, action, reward and end
        units = config.state_embed_size, config.action_embed_size, config.reward_embed_size
        sizes = list(zip(self.inputs, units, strict=True))
        self.embeds = nn.ModuleList(nn.Linear(size, unit) if size and unit else Unseen() for size, unit in sizes)
        self.memory = GRU(sum(unit for size, unit in sizes if size), config.gru_size)
        self.mean = nn.Linear(config.gru_size, config.latent_size)
        self.logvar = nn.Linear(config.gru_size, config.latent_size)
        self.size = 2 * config.latent_size
        anywhere = gymnasium.spaces.Box(-math.inf, math.inf, (self.size,))
        self.latents = Scaling(anywhere, follows=True) if config.norm_latent else None
        if self.latents is not None:
            self.latents.scale.fill_(1.0)  # no scaling in the first iteration

    def prior(self, rows: int, device: torch.device | str = "cpu") -> Tensor:
        """Return the initial belief of `rows` trials."""
        return self.memory.initial(rows, device)

    def posterior(self, belief: Tensor, step: Step) -> Tensor:
        """Return the belief after a step: the last action and reward, the end of an episode, and the observation."""
        state: Tensor = self.memory.step(self._embed(self.raw(step)), belief)[1]
        return state

    def features(self, belief: Tensor) -> Tensor:
        """Return mean and log-variance of m, ``(…, 2 Z)``, standardised if ``config.norm_latent``."""
        latents = torch.cat(self.gaussian(belief), dim=-1)
        return latents if self.latents is None else self.latents.scaled(latents, latents.ndim - 1)

    @torch.no_grad()
    def follow(self, raw: Tensor, mask: Tensor, weight: float) -> None:
        """Move the scales of `features` towards the moments of the beliefs in trials ``(T, B, F)``, by `weight`."""
        if self.latents is not None:
            self.latents.follow(torch.cat(self.gaussian(self.sequence(raw)), dim=-1), mask, weight)

    def gaussian(self, belief: Tensor) -> Gaussian:
        """Return the distribution q(m | τ:t) of beliefs ``(…, H)``."""
        return Gaussian(self.mean(belief), self.logvar(belief))

    def raw(self, step: Step) -> Tensor:
        """Return encoded steps in the networks' units, ``(B, F)`` or ``(T, B, F)``, before any trained layer."""
        return self.steps.raw(step, self.steps.initial(step.prev_reward.shape[-1]))[0]

    def sequence(self, raw: Tensor) -> Tensor:
        """Return the beliefs after each step of whole trials, ``(T, B, H)``; `raw` is ``(T, B, F)``."""
        return self.memory.sequence(self._embed(raw), None)[0]

    def _embed(self, raw: Tensor) -> Tensor:
        parts = zip(self.embeds, raw.split(self.inputs, dim=-1), strict=True)
        return torch.cat([F.relu(embed(part)) for embed, part in parts], dim=-1)


class Unseen(nn.Module):
    """An embedding with no units, for an input that the encoder does not see."""

    def forward(self, x: Tensor) -> Tensor:
        return x[..., :0]


class VariBADNetwork(BeliefNetwork):
    """The MLPs of policy and critic on a learned belief, and its decoder.

    With ``config.stop_gradient``, no gradient of PPO reaches the encoder, and the inputs ``(T, B, F)`` are what the
    MLPs read. Without it, they are the encoder's inputs and the fraction of the trial that is over.
    """

    def __init__(self, config: VariBADConfig, family: TaskFamily, tasks: Tensor) -> None:
        """Make the networks. `tasks` ``(N, D)`` are training tasks, which standardise the task input."""
        super().__init__(config, family, 2 * config.latent_size, tasks)
        self.belief = LearnedBelief(config, family)
        self.scaling = self.belief.steps  # all networks scale observations alike
        self.decoder = Decoder(config, family, (*self.belief.inputs[:2], tasks.shape[1]))
        self.stop_gradient = config.stop_gradient

    def ppo_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Return the parameters that PPO trains; without `stop_gradient` they include the encoder's."""
        others = ("decoder.", "belief.") if self.stop_gradient else ("decoder.",)
        return [(name, parameter) for name, parameter in self.named_parameters() if not name.startswith(others)]

    def learned_by_elbo(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Return the parameters of encoder and decoder, under names that differ from PPO's."""
        named = self.named_parameters()
        return [(f"elbo.{name}", parameter) for name, parameter in named if name.startswith(("decoder.", "belief."))]

    def trial_inputs(self, step: Step, share: Tensor) -> Tensor:
        """Return the inputs at all steps of whole trials, ``(T, B, F)``; `share` ``(T, B)`` is the fraction over."""
        x = torch.cat([self.belief.raw(step), share[..., None]], dim=-1)
        return self._on_belief(x) if self.stop_gradient else x

    def shown(self, x: Tensor) -> Tensor:
        """Return what the MLPs read, ``(T, B, …)``, for inputs ``(T, B, F)``."""
        return x if self.stop_gradient else self._on_belief(x)

    def _on_belief(self, x: Tensor) -> Tensor:
        """Replace the encoder's inputs by the beliefs computed from them."""
        raw, share = x[..., :-1], x[..., -1:]
        obs = raw[..., : self.belief.inputs[0]]
        return torch.cat([obs, self.belief.features(self.belief.sequence(raw)), share], dim=-1)
