"""PEARL's networks: an encoder of transitions, and an actor and critics that see the latent task."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from metarl.agents.pearl.by_task import Transitions
from metarl.agents.pearl.posterior import Posterior
from metarl.agents.pearl.prototypes import Prototypes
from metarl.agents.recurrent_sac.network import Policy
from metarl.core.batch_env import Step
from metarl.core.distributions import Categorical
from metarl.core.family import TaskFamily
from metarl.core.rollout import Rollout
from metarl.core.units import ActionUnits, action_size
from metarl.learning.encoder import StepEncoder
from metarl.learning.nets import tanh
from metarl.learning.soft import BatchedMLP, SquashedGaussian

if TYPE_CHECKING:
    from metarl.agents.pearl.config import PEARLConfig


class PEARLNetwork(nn.Module):
    """All networks. `scaling` has no trained parameters: it only scales observations, actions and rewards."""

    def __init__(self, config: PEARLConfig, family: TaskFamily) -> None:
        """Make the networks. Raises ValueError for a family that shows images."""
        super().__init__()
        self.scaling = StepEncoder(
            family.observation_space,
            family.action_space,
            transition=True,
            follows=config.norm_obs,
            parts=family.observation_parts,
        )
        if self.scaling.images is not None:
            raise ValueError(f"PEARL needs vector observations, and {family!r} has images: choose RL2, for example.")
        self.actions = ActionUnits(family.action_space)
        self.size = action_size(family.action_space)
        self.latent_size, self.next_obs, self.bounded = config.latent_size, config.next_obs, config.by_distance
        seen, latent = self.scaling.size, config.latent_size
        inputs = self.scaling.raw_size - (0 if config.next_obs else seen)
        self.encoder = BatchedMLP(1, [inputs], config.encoder_sizes, 2 * latent)
        continuous = self.actions.continuous
        outputs = 2 * self.size if continuous else self.size
        self.actor = BatchedMLP(1, [seen, latent], config.hidden_sizes, outputs)
        parts = [seen, latent, self.size] if continuous else [seen, latent]
        self.critic = BatchedMLP(2, parts, config.hidden_sizes, 1 if continuous else self.size)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.tensor(config.init_alpha).log())
        kept = Prototypes(config.prototypes, latent, config.distance) if config.keeps_prototypes else None
        self.prototypes: Prototypes | None = kept

    def prior(self, rows: int) -> Posterior:
        """Return the prior for `rows` rows."""
        return Posterior.prior(rows, self.latent_size, self.scaling.centre)

    def factors(self, context: Tensor) -> Posterior:
        """Return the factor Ψ(z | c) of each encoded transition ``(…, F)``.

        If distances train the encoder, means are in (-1, 1), as in FOCAL; otherwise repulsion would be unbounded.
        """
        mean, spread = self.encoder.finish(self.encoder.begin(context)).squeeze(0).chunk(2, dim=-1)
        return Posterior.factors(tanh(mean) if self.bounded else mean, F.softplus(spread))

    def infer(self, context: Tensor) -> Posterior:
        """Return the posteriors ``(N, Z)`` given encoded transitions ``(N, M, F)``."""
        factors = self.factors(context.transpose(0, 1))
        return self.prior(len(context)).times(factors, torch.ones_like(factors.precision[..., 0]))

    def nearest(self, embedding: Tensor) -> Tensor:
        """Return the nearest prototypes to embeddings ``(N, Z)``. Raises ValueError if no prototypes are kept."""
        if self.prototypes is None:
            raise ValueError(
                "This agent keeps no embeddings of training tasks: train it with inference 'nearest', or with "
                "embedding_loss 'contrastive' or 'siamese'."
            )
        return self.prototypes.nearest(embedding)

    def encoded(self, transitions: Transitions) -> Tensor:
        """Encode transitions for `factors`: observation, action, reward, end and, with `next_obs`, next observation.

        Transitions are ``(N, M, …)``, and the result is ``(N, M, F)``.
        """
        rows = Transitions(*(leaf.flatten(0, 1) for leaf in transitions))
        step = Step(rows.next_obs, rows.action, rows.reward, rows.terminated.to(rows.reward.dtype))
        raw, _ = self.scaling.raw(step, self.scaling.scaled(rows.obs, 1))
        return raw[:, 0 if self.next_obs else self.scaling.size :].unflatten(0, transitions.reward.shape)

    def policy(self, seen: Tensor, latent: Tensor) -> Policy:
        """Return the policies for scaled observations ``(…, F)`` and latent tasks ``(…, Z)``."""
        outputs = self.actor.finish(self.actor.begin(seen, latent)).squeeze(0)
        return SquashedGaussian.from_outputs(outputs) if self.actions.continuous else Categorical.from_logits(outputs)

    def taken(self, values: Tensor, action: Tensor) -> Tensor:
        """Return the values ``(2, N, M)`` of the actions taken, from the critics' outputs ``(2, N, M, K)``."""
        if self.actions.continuous:
            return values.squeeze(-1)
        return values.gather(-1, action.expand(len(values), *action.shape)[..., None]).squeeze(-1)

    def groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Return the trained parameters with their names, grouped by optimiser."""
        names = "encoder", "actor", "critic", "log_alpha"
        named = list(self.named_parameters())
        return {name: [(n, p) for n, p in named if n.partition(".")[0] == name] for name in names}


class Memory(NamedTuple):
    """The agent's memory: the posterior so far, and the latent of the current episode."""

    posterior: Posterior  # (N, Z) after the episodes that `adapt` has seen
    latent: Tensor  # (N, Z)
    fresh: Tensor  # (N,) bool: the next step must draw a latent
    rounds: Tensor  # (N,) int64: the rounds that `adapt` has seen


def transitions_of(rollout: Rollout) -> Transitions:
    """Return the transitions of a round, ``(T, B, …)``."""
    outcome = rollout.outcome
    return Transitions(rollout.step.obs, rollout.acted.action, outcome.reward, outcome.terminated, outcome.final_obs)


def check_actions(family: TaskFamily) -> None:
    """Raise ValueError for an action space that PEARL does not support."""
    space, given = family.action_space, f"and those of {type(family).__name__} are {family.action_space}"
    if isinstance(space, spaces.Box):
        if not space.is_bounded():
            raise ValueError(f"PEARL needs actions with finite bounds, {given}: choose RL2.")
    elif not isinstance(space, spaces.Discrete):
        raise ValueError(f"PEARL needs Discrete or Box actions, {given}: choose RL2.")
