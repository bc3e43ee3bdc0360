"""An ensemble: several trained agents, whose policies are mixed with weights that adapt to the task.

All members see the same trial, each with its own memory. The ensemble's policy is a convex combination: at every step
of the members' action distributions, ``Σ w_i π_i(a | h)``, or for every episode of the members themselves. Each task
has its own weights, which start equal and follow the evidence of the trial (`weights.py`). The members disagree where
training did not teach them the same, so their disagreement measures how uncertain the ensemble is.

Members that adapt in rounds (MAML) play every round together, and each takes its own gradient step from it. With
``mix="episode"`` a member learns from the trajectories that it played itself. With "step" it learns from all of them,
with actions weighted by their likelihood ratio of member to mixture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium
import torch
from torch import Tensor

from metarl.agents.ensemble.config import MIXES, EnsembleConfig
from metarl.agents.ensemble.members import AdaptsFromOthers, shared_protocol
from metarl.agents.ensemble.weights import (
    WEIGHTS,
    PredictsReward,
    by_hedge,
    by_likelihood,
    disagreement,
    hedge_rate,
    normal_log_prob,
    sampled_disagreement,
)
from metarl.core import rng
from metarl.core.agent import LearningAgent, at
from metarl.core.batch_env import Step
from metarl.core.distributions import Categorical, Distribution
from metarl.core.errors import unknown
from metarl.core.family import Key, Task
from metarl.core.rollout import Acted, Memory, Rollout, run_trial
from metarl.core.tree import num_rows, tree_map
from metarl.core.units import ActionUnits

REFERENCE_TASKS = 500
"""Number of training tasks over which the gap of oracle and random return, the unit of Hedge's gains, is averaged."""
RESIDUAL_TASKS = 100
"""Number of training tasks on which the size of a critic's errors is measured."""
SAMPLES = 8
"""Number of actions per member that estimate the disagreement of distributions that are not categorical."""


class EnsembleMemory(NamedTuple):
    """The members' memories, and what the weights depend on."""

    members: tuple[Any, ...]
    log_weights: Tensor  # (B, M)
    last_obs: Tensor | None  # (B, O) before the last action; None at the trial's start
    values: Tensor  # (B, M) the values of the members' critics before the last action; 0 if unused
    log_own: Tensor  # (B, M) log-probability of this episode's actions under each member
    log_mixed: Tensor  # (B,) the same under the mixture of each step
    playing: Tensor  # (B,) int64: the member whose episode it is; only with ``mix="episode"``
    gain: Tensor  # (B,) return of this episode so far
    disagreement: Tensor  # (B,) in the last step, nats


class Ensemble(LearningAgent):
    """A convex combination of trained agents of one family; see the module's docstring."""

    config: EnsembleConfig

    def __init__(
        self,
        members: Sequence[LearningAgent],
        weights: str = "uniform",
        mix: str = "step",
        rate: float | None = None,
    ) -> None:
        """Combine `members`, at least two, which all adapt in their memory or all in the same number of rounds.

        `weights` is one of `WEIGHTS`. With ``mix="step"`` the action distributions are combined at every step. With
        "episode" each episode is played by one member, drawn by the weights, so that plans of several steps, such as a
        sweep in search of a goal, stay intact. A greedy Box action is the member's mode that the mixture finds most
        likely. With ``weights="likelihood"``, a member that does not predict rewards is judged by its critic: its
        one-step errors are taken as normal, with the size that they have on training tasks. `rate` is Hedge's learning
        rate, by default that of `hedge_rate`. Members that adapt in rounds have uniform weights. Raises ValueError for
        members that cannot be combined, for members that predict neither rewards nor returns with
        ``weights="likelihood"``, and for a family without a known range of returns with ``"hedge"``.
        """
        if len(members) < 2:
            raise ValueError(f"An ensemble needs two members or more, got {len(members)}.")
        if weights not in WEIGHTS:
            raise ValueError(unknown("kind of weights", weights, WEIGHTS))
        if mix not in MIXES:
            raise ValueError(unknown("kind of mix", mix, MIXES))
        first = members[0]
        self.config, self.device = EnsembleConfig(weights=weights, mix=mix, rate=rate), first.device
        self.protocol = shared_protocol(members, weights)
        self.members, self.weights, self.mix, self.family = tuple(members), weights, mix, first.family
        space = self.family.action_space
        self.units = ActionUnits(space).to(self.device)
        self.actions = int(space.n) if isinstance(space, gymnasium.spaces.Discrete) else None
        self.rate = hedge_rate(len(members), self.family.episodes_per_trial) if rate is None else rate
        self.unit = self._range_of_returns() if weights == "hedge" else 1.0
        by_critic = [weights == "likelihood" and not isinstance(member, PredictsReward) for member in members]
        self.residual_sizes = [
            self._residual_size(member) if asked else None for member, asked in zip(members, by_critic, strict=True)
        ]

    def _range_of_returns(self) -> float:
        """Return how much more the oracle earns per episode than random play, averaged over training tasks."""
        task = self.family.sample_tasks(rng.key(0), REFERENCE_TASKS)
        best, random = self.family.oracle(task), self.family.random_return(task)
        if best is None or random is None:
            raise ValueError(f"weights='hedge' needs a known range of returns, and {self.family!r} has none.")
        return float((best - random).mean())

    def _residual_size(self, member: LearningAgent) -> float:
        """Return the root mean square of a critic's one-step errors on training tasks that its agent plays."""
        key = rng.key(0, self.device)
        (rollout,) = run_trial(member, self.family, self.family.sample_tasks(key, RESIDUAL_TASKS), key)
        value = rollout.acted.value * rollout.mask
        if not bool(value.any()):
            raise ValueError(
                "weights='likelihood' needs members that predict rewards, such as VariBAD, or returns while they act, "
                f"such as RL2 with critic: history; {member.title} does neither."
            )
        following = torch.cat([value[1:], torch.zeros_like(value[:1])])
        residual = (rollout.outcome.reward + _discount(member) * following - value) * rollout.mask
        return float((residual.square().sum() / rollout.mask.sum()).sqrt().clamp_min(1e-6))

    def begin(self, num_tasks: int, task: Task | None = None) -> EnsembleMemory:
        return self._begin(num_tasks, tuple(member.begin(num_tasks) for member in self.members))

    def _begin(self, num_tasks: int, memories: tuple[Any, ...]) -> EnsembleMemory:
        """Return the memory at the start of trials, or rounds, in which the members have these memories."""
        equal = torch.zeros(num_tasks, len(self.members), device=self.device).log_softmax(-1)
        nothing = torch.zeros(num_tasks, device=self.device)
        nobody = torch.zeros(num_tasks, dtype=torch.int64, device=self.device)
        zeros = torch.zeros_like(equal)
        return EnsembleMemory(memories, equal, None, zeros, zeros, nothing, nobody, nothing, nothing)

    @torch.no_grad()
    def act(self, memory: EnsembleMemory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        memory = _of_rows(memory, len(step.prev_reward))
        both = list(zip(self.members, memory.members, strict=True))
        acts = [member.act(own, step, key, greedy) for member, own in both]
        values = torch.stack([acted.value for acted, _ in acts], dim=-1)
        memory = self._weighed(memory, step, values)
        policies = [self._policy(member, own, step) for member, own in both]
        playing = self._playing(memory, step, key)
        action = self._choose(policies, memory.log_weights, playing, key, greedy)
        of_members = self._log_probs(policies, action)
        mixed = torch.logsumexp(memory.log_weights + of_members, dim=-1)
        chosen = of_members.gather(-1, playing[:, None]).squeeze(-1) if self.mix == "episode" else mixed
        memory = memory._replace(
            members=tuple(after for _, after in acts), last_obs=step.obs, values=values,
            log_own=memory.log_own + of_members, log_mixed=memory.log_mixed + mixed, playing=playing,
            disagreement=self._disagreement(policies, memory.log_weights, key),
        )  # fmt: skip
        return Acted(self.units.to_family(action), chosen, torch.zeros_like(chosen)), memory

    def adapt(self, memory: EnsembleMemory, rollout: Rollout) -> Memory:
        """Let members that adapt in rounds learn from the round; others have already adapted while acting."""
        if self.protocol.test().rounds == 1:
            return memory
        adapted = []
        for number, (member, own) in enumerate(zip(self.members, memory.members, strict=True)):
            if self.mix == "episode":
                mine = (memory.playing == number).to(rollout.mask.dtype)
                adapted.append(member.adapt(own, rollout._replace(mask=rollout.mask * mine)))
            else:
                assert isinstance(member, AdaptsFromOthers), "shared_protocol has seen to it"
                adapted.append(member.adapt_from_others(own, rollout))
        return self._begin(num_rows(memory.members[0]), tuple(adapted))

    def update(self, trial: list[Rollout], progress: float = 0.0) -> dict[str, float]:
        return {}

    def _policy(self, member: LearningAgent, memory: Memory, step: Step) -> Distribution:
        """Return a member's action distribution."""
        policy = member.action_distribution(memory, step)
        if policy is None:
            raise ValueError(f"{member.title} does not say how likely its actions are, so it cannot be in an ensemble.")
        return policy

    def _playing(self, memory: EnsembleMemory, step: Step, key: Key) -> Tensor:
        """Return the member ``(B,)`` whose policy acts: drawn for each step, or for each episode."""
        if self.mix == "step" and self.actions is not None:
            return memory.playing  # unused: actions are drawn from the mixture itself
        drawn = rng.choice(rng.fold(key, 1), memory.log_weights.exp())
        if self.mix == "step" or memory.last_obs is None:
            return drawn
        return torch.where(step.prev_done > 0.5, drawn, memory.playing)

    def _choose(
        self, policies: Sequence[Distribution], log_weights: Tensor, playing: Tensor, key: Key, greedy: bool
    ) -> Tensor:
        """Return the action ``(B,)`` or ``(B, A)``, in the networks' units."""
        rows = torch.arange(len(playing), device=self.device)
        if self.actions is not None:
            log_probs = _categorical(policies)
            policy = log_probs[rows, playing]
            if self.mix == "step":
                policy = torch.logsumexp(log_weights[..., None] + log_probs, dim=1)
            return policy.argmax(-1) if greedy else rng.choice(key, policy.exp())
        each = [policy.mode() if greedy else policy.sample(key) for policy in policies]
        if greedy and self.mix == "step":  # the mode of a mixture of Gaussians has no closed form
            density = [torch.logsumexp(log_weights + self._log_probs(policies, mode), dim=-1) for mode in each]
            playing = torch.stack(density, dim=-1).argmax(-1)
        return torch.stack(each, dim=1)[rows, playing]

    def _log_probs(self, policies: Sequence[Distribution], action: Tensor) -> Tensor:
        """Return the log-probabilities ``(B, M)`` of an action under every member."""
        return torch.stack([policy.log_prob(action) for policy in policies], dim=-1)

    def _disagreement(self, policies: Sequence[Distribution], log_weights: Tensor, key: Key) -> Tensor:
        if self.actions is not None:
            return disagreement(_categorical(policies), log_weights)
        keys = [rng.fold(key, 2 + number) for number in range(SAMPLES)]
        drawn = [[self._log_probs(policies, policy.sample(key)) for policy in policies] for key in keys]
        return sampled_disagreement(torch.stack([torch.stack(each, dim=1) for each in drawn]), log_weights)

    def _reward_log_probs(self, memory: EnsembleMemory, last_obs: Tensor, step: Step, values: Tensor) -> Tensor:
        """Return each member's log-likelihood of the last reward, ``(B, M)``, from its prediction or its critic."""
        found = []
        for number, (member, own) in enumerate(zip(self.members, memory.members, strict=True)):
            size = self.residual_sizes[number]
            if size is None:
                assert isinstance(member, PredictsReward)
                found.append(member.reward_log_prob(own, last_obs, step))
                continue
            after, before = _discount(member) * values[:, number], memory.values[:, number]
            found.append(normal_log_prob(step.prev_reward + after - before, size))
        return torch.stack(found, dim=-1)

    def _weighed(self, memory: EnsembleMemory, step: Step, values: Tensor | None = None) -> EnsembleMemory:
        """Update the weights by the reward in a step. `values` ``(B, M)`` are the members' critics at this step."""
        if memory.last_obs is None or self.weights == "uniform":
            return memory
        if self.weights == "likelihood":
            values = memory.values if values is None else values
            found = self._reward_log_probs(memory, memory.last_obs, step, values)
            return memory._replace(log_weights=by_likelihood(memory.log_weights, found))
        gain, ended = memory.gain + step.prev_reward / self.unit, (step.prev_done > 0.5)[:, None]
        mixed = memory.log_mixed
        if self.mix == "episode":  # a mixture over whole episodes
            mixed = torch.logsumexp(memory.log_weights + memory.log_own, dim=-1)
        after = by_hedge(memory.log_weights, gain, memory.log_own - mixed[:, None], self.rate)
        return memory._replace(
            log_weights=torch.where(ended, after, memory.log_weights),
            log_own=torch.where(ended, 0.0, memory.log_own),
            log_mixed=torch.where(ended[:, 0], 0.0, memory.log_mixed),
            gain=torch.where(ended[:, 0], 0.0, gain),
        )


def _of_rows(memory: EnsembleMemory, rows: int) -> EnsembleMemory:
    """Expand the memory of tasks, as `begin` makes it, to the tasks' rows; the members' memories stay as they are."""
    each = rows // len(memory.log_weights)
    if each == 1:
        return memory
    repeated: EnsembleMemory = tree_map(
        lambda part: part if part is None else part.repeat_interleave(each, 0), memory._replace(members=())
    )
    return repeated._replace(members=memory.members)


def _categorical(policies: Sequence[Distribution]) -> Tensor:
    """Return the members' log-probabilities of all actions ``(B, M, A)``."""
    return torch.stack([policy.log_probs for policy in policies if isinstance(policy, Categorical)], dim=1)


def _discount(member: LearningAgent) -> float:
    """Return the discount factor of the returns that a member's critic predicts, at the end of its training."""
    gamma = getattr(member.config, "gamma", 1.0)
    return at(gamma, 1.0)
