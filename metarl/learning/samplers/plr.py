"""Prioritised level replay: train again on the tasks on which there is most to learn (Jiang et al. 2021a, 2021b).

With probability `replay` a batch is drawn from a buffer of tasks that were played before, otherwise it is new. A task
is replayed with probability

    P = (1 - staleness) · P_score + staleness · P_stale,   P_score ∝ h(score)^(1 / temperature),   P_stale ∝ age,

with h = 1 / rank of its score, or the score itself, and age = batches since it was last played, as its score says less
and less. In the *robust* form the agent takes no gradient on new tasks: they are played only to be scored. At the
equilibrium of the game between the agent and the sampler it is then a minimax-regret policy (2021b, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.checks import pattern_task
from metarl.core.family import Key, Task
from metarl.core.options import FRACTION, POSITIVE_FINITE, SHARE, at_least, between, one_of, option
from metarl.core.rollout import Rollout
from metarl.core.tree import num_rows, take
from metarl.learning.samplers import scores
from metarl.learning.samplers.buffer import Scored, TaskBuffer
from metarl.learning.samplers.sampler import Proposal, SamplerOptions, TaskSampler, gathered, of_this_rank

IDLE = 5
"""Batches without a single new task after which there are probably no others."""


@dataclass(frozen=True)
class PLROptions(SamplerOptions):
    """Prioritised level replay (Jiang et al. 2021a; with robust: true, 2021b)."""

    robust: bool = False
    """Take no gradient on new tasks: play them only to be scored (robust PLR). Their steps count."""
    score: str = option("max_mc", one_of(*scores.SCORES))
    """The measure of how much is left to learn on a task: max_mc (its best return so far less the critic's value),
    positive_value_loss (the mean positive advantage), or regret (the known optimum less the return, exactly)."""
    replay: float = option(0.8, FRACTION)
    """Probability of a batch from the buffer, once that is filled to min_fill."""
    capacity: int = option(4000, at_least(1))
    """Tasks in the buffer at most."""
    min_fill: float = option(0.5, SHARE)
    """Share of the capacity (or of a finite split, if that is smaller) that is filled before the first replay."""
    prioritization: str = option("rank", one_of("rank", "proportional"))
    """Weight of a task by its score: rank (1 / its rank), or proportional (the score, where it is positive)."""
    temperature: float = option(0.3, POSITIVE_FINITE)
    """Evenness of the weights: each is taken to the power 1 / temperature."""
    staleness: float = option(0.3, between(0, 1))
    """Share of the replay that is by age, as scores of long ago say little."""
    replace: bool = False
    """Draw a batch with replacement, as the papers do with few tasks side by side; otherwise its tasks differ."""
    gamma: float = option(0.99, between(0, 1))
    """Discount factor of the positive value loss; that of the agent, whose critic it compares with."""
    gae_lambda: float = option(0.95, between(0, 1))
    """Bias against variance of the advantages in the positive value loss."""

    def build(self, agent: LearningAgent, split: str) -> PLR:
        return PLR(self, agent, split)


class PLR(TaskSampler):
    """The sampler; see the module's docstring."""

    def __init__(self, options: PLROptions, agent: LearningAgent, split: str) -> None:
        super().__init__(agent, split)
        scores.check(agent, options.score)
        self.options = options
        count = self.family.num_tasks(split)
        self.buffer = TaskBuffer(options.capacity if count is None else min(options.capacity, count), self.device)
        self.replayed = False

    def propose(self, key: Key, n: int) -> Proposal:
        """Propose a batch from the buffer with probability `replay`, otherwise a new one."""
        options, buffer = self.options, self.buffer
        # A family that has no other tasks than those in the buffer would never fill it.
        filled = len(buffer) >= options.min_fill * buffer.capacity or buffer.idle >= IDLE
        self.replayed = filled and bool(rng.uniform(rng.fold(key, 0), 1) < options.replay)
        if self.replayed:
            return Proposal(take(buffer.tasks, self.draw(rng.fold(key, 1), n)))
        return Proposal(self.fresh(rng.fold(key, 2), n), learn=not options.robust)

    def score(self, proposal: Proposal, trial: list[Rollout]) -> None:
        """Score the tasks, and put them into the buffer."""
        self.take_in(proposal.tasks, trial[-1])

    def take_in(self, tasks: Task, rollout: Rollout) -> None:
        """Score tasks by the last round of a trial on this rank's part of them, and put them into the buffer."""
        options, agent, own = self.options, self.agent, of_this_rank(tasks)
        played = scores.outcome(agent, rollout, num_rows(own))
        best = torch.maximum(played.best, self.buffer.best_of(own))
        if options.score == "regret":
            score = scores.regret(agent, rollout, played.mean)
        elif options.score == "max_mc":
            score = scores.max_mc(agent, rollout, best)
        else:
            score = scores.positive_value_loss(agent, rollout, len(best), options.gamma, options.gae_lambda)
        found = gathered(torch.stack([score, best], dim=1))
        self.buffer.add(Scored(tasks, found[:, 0], found[:, 1]), self.probabilities())

    def by_score(self) -> Tensor:
        """Return P_score of the tasks in the buffer: float64 ``(count,)``."""
        score = self.buffer.score.to(torch.float64)
        if self.options.prioritization == "rank":
            rank = torch.empty_like(score)
            order = score.argsort(descending=True, stable=True)
            rank[order] = torch.arange(1, len(score) + 1, dtype=torch.float64, device=score.device)
            weight = rank ** (-1.0 / self.options.temperature)
        else:
            positive = score.clamp_min(0.0)
            weight = (positive / positive.amax().clamp_min(1e-12)) ** (1.0 / self.options.temperature)
        return _normalised(weight)

    def by_age(self) -> Tensor:
        """Return P_stale of the tasks in the buffer: float64 ``(count,)``."""
        return _normalised(self.buffer.age().to(torch.float64))

    def probabilities(self) -> Tensor:
        """Return the probability of each task in the buffer to be replayed: float64 ``(count,)``."""
        if not len(self.buffer):
            return torch.zeros(0, dtype=torch.float64, device=self.device)
        share = self.options.staleness
        return (1.0 - share) * self.by_score() + share * self.by_age()

    def draw(self, key: Key, n: int) -> Tensor:
        """Draw the rows ``(n,)`` of a batch from the buffer.

        Without replacement each place of the batch is one by score or one by age, and each kind is drawn one after the
        other from what is left, so that every place follows the formula among the tasks that are not drawn yet. A
        buffer with fewer tasks than places is drawn from with replacement.
        """
        if self.options.replace or len(self.buffer) < n:
            each = rng.fold(key, torch.arange(n, device=key.device))
            return rng.choice(each, self.probabilities().expand(n, -1))
        stale = int((rng.uniform(rng.fold(key, 0), n) < self.options.staleness).sum())
        first = _without_replacement(rng.fold(key, 1), self.by_score(), n - stale)
        by_age = self.by_age().index_fill(0, first, -1.0)
        return torch.cat([first, _without_replacement(rng.fold(key, 2), by_age, stale)])

    def metrics(self) -> dict[str, float]:
        buffer = self.buffer
        top = buffer.score.topk(max(1, len(buffer) // 10)).values
        return {
            "tasks/replayed": float(self.replayed),
            "tasks/fill": len(buffer) / buffer.capacity,
            "tasks/score": float(buffer.score.mean()),
            "tasks/score_top": float(top.mean()),
            "tasks/age": float(buffer.age().to(torch.float32).mean()),
        }

    def state_dict(self) -> dict[str, Tensor]:
        return self.buffer.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.buffer.load_state_dict(state, pattern_task(self.family))


def _normalised(weight: Tensor) -> Tensor:
    """Return weights ``(count,)`` that are not negative as probabilities; equal ones where all are 0."""
    total = weight.sum()
    return torch.where(total > 0.0, weight / total.clamp_min(1e-300), 1.0 / len(weight))


def _without_replacement(key: Key, probs: Tensor, n: int) -> Tensor:
    """Draw `n` different rows, one after the other with `probs` among the rest (Gumbel's trick); those below 0 never.

    Rows with probability 0 come only after all others, in random order.
    """
    uniform = rng.uniform(key, len(probs)).to(torch.float64).clamp(1e-9, 1.0 - 1e-9)
    gumbel = -torch.log(-torch.log(uniform))
    value = torch.where(probs < 0.0, -torch.inf, probs.clamp_min(1e-300).log() + gumbel)
    return value.topk(n).indices
