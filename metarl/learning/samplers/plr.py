"""Prioritised level replay: replay the tasks with the highest learning potential (Jiang et al. 2021a, 2021b).

With probability `replay` a batch is drawn from a buffer of tasks that were played before; otherwise it is new. A task
is replayed with probability

    P = (1 - staleness) · P_score + staleness · P_stale,   P_score ∝ h(score)^(1 / temperature),   P_stale ∝ age,

where h is 1 / rank of its score, or the score itself, and age is the number of batches since the task was last played,
as old scores become unreliable. In the *robust* variant the agent takes no gradient on new tasks, which are played only
for scoring. At the equilibrium of the game between agent and sampler, the agent is then a minimax-regret policy (2021b,
section 4).
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
"""Number of batches without a new task after which the split is assumed to have no more tasks."""


@dataclass(frozen=True)
class PLROptions(SamplerOptions):
    """Prioritised level replay (Jiang et al. 2021a; with robust: true, 2021b)."""

    robust: bool = False
    """Take no gradient on new tasks: play them only for scoring (robust PLR). Their steps count as training steps."""
    score: str = option("max_mc", one_of(*scores.SCORES))
    """Measure of a task's learning potential: max_mc (its best return so far minus the critic's value),
    positive_value_loss (the mean positive advantage), or regret (the known optimum minus the return, exact)."""
    replay: float = option(0.8, FRACTION)
    """Probability of drawing a batch from the buffer, once it is filled to min_fill."""
    capacity: int = option(4000, at_least(1))
    """Largest number of tasks in the buffer."""
    min_fill: float = option(0.5, SHARE)
    """Fraction of the capacity (or of a finite split, if that is smaller) that is filled before the first replay."""
    prioritization: str = option("rank", one_of("rank", "proportional"))
    """Weight of a task: rank (1 / the rank of its score), or proportional (its score, if positive)."""
    temperature: float = option(0.3, POSITIVE_FINITE)
    """Temperature of the weights, each of which is raised to the power 1 / temperature; higher is more uniform."""
    staleness: float = option(0.3, between(0, 1))
    """Fraction of the replay that is by age instead of score, as old scores are unreliable."""
    replace: bool = False
    """Draw a batch with replacement, as the papers do with few parallel tasks; if false, its tasks are distinct."""
    gamma: float = option(0.99, between(0, 1))
    """Discount factor of the positive value loss; set it to that of the agent, whose critic is used."""
    gae_lambda: float = option(0.95, between(0, 1))
    """λ of GAE in the positive value loss, which trades bias against variance of the advantages."""

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
        # A family whose tasks are all in the buffer would never fill it.
        filled = len(buffer) >= options.min_fill * buffer.capacity or buffer.idle >= IDLE
        self.replayed = filled and bool(rng.uniform(rng.fold(key, 0), 1) < options.replay)
        if self.replayed:
            return Proposal(take(buffer.tasks, self.draw(rng.fold(key, 1), n)))
        return Proposal(self.fresh(rng.fold(key, 2), n), learn=not options.robust)

    def score(self, proposal: Proposal, trial: list[Rollout]) -> None:
        """Score the tasks, and put them into the buffer."""
        self.update_buffer(proposal.tasks, trial[-1])

    def update_buffer(self, tasks: Task, rollout: Rollout) -> None:
        """Score tasks by the last round of a trial on this rank's part, and put them into the buffer."""
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
        """Return the replay probability of each task in the buffer, float64 ``(count,)``."""
        if not len(self.buffer):
            return torch.zeros(0, dtype=torch.float64, device=self.device)
        share = self.options.staleness
        return (1.0 - share) * self.by_score() + share * self.by_age()

    def draw(self, key: Key, n: int) -> Tensor:
        """Draw the rows ``(n,)`` of a batch from the buffer.

        Without replacement, each place of the batch is assigned to score or to age. The places of each kind are drawn
        one after the other, so that each follows the formula among the tasks not drawn yet. If the buffer has fewer
        than n tasks, the draw is with replacement.
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
    """Normalise nonnegative weights ``(count,)`` to probabilities; return uniform ones if all are 0."""
    total = weight.sum()
    return torch.where(total > 0.0, weight / total.clamp_min(1e-300), 1.0 / len(weight))


def _without_replacement(key: Key, probs: Tensor, n: int) -> Tensor:
    """Draw `n` distinct rows, each in proportion to `probs` among the remaining ones (the Gumbel top-k trick).

    Rows with negative `probs` are never drawn. Rows with probability 0 come only after all others, in random order.
    """
    uniform = rng.uniform(key, len(probs)).to(torch.float64).clamp(1e-9, 1.0 - 1e-9)
    gumbel = -torch.log(-torch.log(uniform))
    value = torch.where(probs < 0.0, -torch.inf, probs.clamp_min(1e-300).log() + gumbel)
    return value.topk(n).indices
