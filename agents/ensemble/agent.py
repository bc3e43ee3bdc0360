"""An ensemble: several trained agents, whose action distributions are mixed with weights that adapt to the task.

All members see the same trial, each with its own memory. The ensemble's policy is the convex combination
``Σ w_i π_i(a | h)`` of their action distributions, step by step, or of their ways to play an episode. The weights
belong to a task: they start equal and follow what the trial shows (`weights.py`). Where members disagree, they have
learned nothing in common about such a task, so their disagreement is a measure of how uncertain the ensemble is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium
import torch
from torch import Tensor

from metarl.agents.ensemble.weights import (
    WEIGHTS,
    PredictsReward,
    by_hedge,
    by_likelihood,
    disagreement,
    hedge_rate,
)
from metarl.agents.random import FixedAgent
from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.batch_env import Step
from metarl.core.errors import unknown
from metarl.core.family import Key, Task
from metarl.core.rollout import Acted, Memory

MIXES = ("step", "episode")
"""Things that are combined: the action distributions of each step, or the members' ways to play an episode."""
REFERENCE_TASKS = 500
"""Training tasks whose known optimum and random return are the unit of Hedge's gains."""


class EnsembleMemory(NamedTuple):
    """The members' memories, and what the weights need to know of the trial."""

    members: tuple[Any, ...]
    log_weights: Tensor  # (B, M)
    last_obs: Tensor | None  # (B, O) before the last action; None at the trial's start
    log_own: Tensor  # (B, M) log-probability of this episode's actions under each member
    log_mixed: Tensor  # (B,) the same under the mixture of each step
    playing: Tensor  # (B,) int64: the member whose episode it is; only with ``mix="episode"``
    gain: Tensor  # (B,) return of this episode so far
    disagreement: Tensor  # (B,) in the last step, nats


class Ensemble(FixedAgent):
    """A convex combination of trained agents of one family; see the module's docstring."""

    def __init__(
        self,
        members: Sequence[LearningAgent],
        weights: str = "uniform",
        mix: str = "step",
        rate: float | None = None,
    ) -> None:
        """Combine `members`, at least two, that learn in their memory and act by Discrete actions.

        `weights` is one of `WEIGHTS`. With ``mix="step"`` the action distributions are combined in every step, with
        "episode" a member is drawn by the weights for each episode: a plan that takes several steps, such as a sweep in
        search of a goal, then stays whole. `rate` is Hedge's, by default that of `hedge_rate`. Raises ValueError for
        members that cannot be combined, or that do not predict rewards with ``weights="likelihood"``, and for a family
        whose returns have no known range with ``"hedge"``.
        """
        if len(members) < 2:
            raise ValueError(f"An ensemble needs two members or more, got {len(members)}.")
        if weights not in WEIGHTS:
            raise ValueError(unknown("kind of weights", weights, WEIGHTS))
        if mix not in MIXES:
            raise ValueError(unknown("kind of mix", mix, MIXES))
        first = members[0]
        super().__init__(first.device)
        for member in members:
            if repr(member.family) != repr(first.family):
                raise ValueError(f"The members play different families: {first.family!r} and {member.family!r}.")
            if member.protocol.test().rounds > 1:
                raise ValueError(f"{member.title} adapts in rounds: an ensemble combines agents that learn in memory.")
        space = first.family.action_space
        if not isinstance(space, gymnasium.spaces.Discrete):
            raise ValueError(f"An ensemble mixes Discrete actions, and {first.family!r} has {space}.")
        if weights == "likelihood" and not all(isinstance(member, PredictsReward) for member in members):
            raise ValueError("weights='likelihood' needs members that predict rewards, such as VariBAD.")
        self.members, self.weights, self.mix, self.family = tuple(members), weights, mix, first.family
        self.actions, self.start = int(space.n), int(space.start)
        self.rate = hedge_rate(len(members), self.family.episodes_per_trial) if rate is None else rate
        self.unit = self._range_of_returns() if weights == "hedge" else 1.0

    def _range_of_returns(self) -> float:
        """Return what an episode of a told player has above one of random play, in the mean over training tasks."""
        task = self.family.sample_tasks(rng.key(0), REFERENCE_TASKS)
        best, random = self.family.oracle(task), self.family.random_return(task)
        if best is None or random is None:
            raise ValueError(f"weights='hedge' needs a known range of returns, and {self.family!r} has none.")
        return float((best - random).mean())

    def begin(self, num_tasks: int, task: Task | None = None) -> EnsembleMemory:
        equal = torch.zeros(num_tasks, len(self.members), device=self.device).log_softmax(-1)
        nothing = torch.zeros(num_tasks, device=self.device)
        memories = tuple(member.begin(num_tasks) for member in self.members)
        nobody = torch.zeros(num_tasks, dtype=torch.int64, device=self.device)
        return EnsembleMemory(memories, equal, None, torch.zeros_like(equal), nothing, nobody, nothing, nothing)

    @torch.no_grad()
    def act(self, memory: EnsembleMemory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        memory = self._weighed(memory, step)
        log_probs = torch.stack(
            [self._log_probs(*each, step) for each in zip(self.members, memory.members, strict=True)]
        )
        log_probs = log_probs.transpose(0, 1)  # (B, M, A)
        mixture = torch.logsumexp(memory.log_weights[..., None] + log_probs, dim=1)
        playing, policy = memory.playing, mixture
        if self.mix == "episode":
            drawn = rng.choice(rng.fold(key, 1), memory.log_weights.exp())
            begins = step.prev_done > 0.5 if memory.last_obs is not None else drawn >= 0
            playing = torch.where(begins, drawn, playing)
            policy = log_probs[torch.arange(len(playing), device=self.device), playing]
        index = policy.argmax(-1) if greedy else rng.choice(key, policy.exp())
        chosen, mixed = (each.gather(-1, index[:, None]).squeeze(-1) for each in (policy, mixture))
        of_members = log_probs.gather(-1, index[:, None, None].expand(-1, len(self.members), 1)).squeeze(-1)
        memories = tuple(
            member.act(own, step, key, greedy)[1] for member, own in zip(self.members, memory.members, strict=True)
        )
        memory = memory._replace(
            members=memories, last_obs=step.obs, log_own=memory.log_own + of_members,
            log_mixed=memory.log_mixed + mixed, playing=playing,
            disagreement=disagreement(log_probs, memory.log_weights),
        )  # fmt: skip
        return Acted(index + self.start, chosen, torch.zeros_like(chosen)), memory

    def _log_probs(self, member: LearningAgent, memory: Memory, step: Step) -> Tensor:
        """Return a member's log-probabilities of all actions ``(B, A)``."""
        policy = member.action_distribution(memory, step)
        if policy is None:
            raise ValueError(f"{member.title} does not say how likely its actions are, so it cannot be in an ensemble.")
        rows = len(step.prev_reward)
        every = torch.arange(self.actions, device=self.device)
        return torch.stack([policy.log_prob(action.expand(rows)) for action in every], dim=-1)

    def _weighed(self, memory: EnsembleMemory, step: Step) -> EnsembleMemory:
        """Take in the reward that a step shows."""
        if memory.last_obs is None or self.weights == "uniform":
            return memory
        if self.weights == "likelihood":
            found = [
                member.reward_log_prob(own, memory.last_obs, step)
                for member, own in zip(self.members, memory.members, strict=True)
                if isinstance(member, PredictsReward)
            ]
            return memory._replace(log_weights=by_likelihood(memory.log_weights, torch.stack(found, dim=-1)))
        gain, ended = memory.gain + step.prev_reward / self.unit, (step.prev_done > 0.5)[:, None]
        mixed = memory.log_mixed
        if self.mix == "episode":  # the mixture is one of whole episodes
            mixed = torch.logsumexp(memory.log_weights + memory.log_own, dim=-1)
        after = by_hedge(memory.log_weights, gain, memory.log_own - mixed[:, None], self.rate)
        return memory._replace(
            log_weights=torch.where(ended, after, memory.log_weights),
            log_own=torch.where(ended, 0.0, memory.log_own),
            log_mixed=torch.where(ended[:, 0], 0.0, memory.log_mixed),
            gain=torch.where(ended[:, 0], 0.0, gain),
        )
