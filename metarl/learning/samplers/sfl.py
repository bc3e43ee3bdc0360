"""Sampling for learnability: train on tasks that are sometimes solved and sometimes not (Rutherford et al. 2024).

Every few iterations many new tasks are played only for scoring. With p the fraction of episodes that solve a task, its
*learnability* is p (1 - p): 0 for a task that is always or never solved, and largest for p = ½. The tasks with the
highest learnability are kept. Each batch draws a fraction of its tasks uniformly from them, and the others are new.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.batch_env import BatchEnv
from metarl.core.checks import pattern_task
from metarl.core.errors import WrongResult
from metarl.core.family import AnyFamily, Key, Task, TaskFamily
from metarl.core.options import SHARE, at_least, option
from metarl.core.rollout import Rollout, episode_success
from metarl.core.tree import concatenate, leaves, named_leaves, num_rows, take
from metarl.learning.samplers.buffer import tasks_from
from metarl.learning.samplers.sampler import Proposal, SamplerOptions, TaskSampler, gathered
from metarl.learning.samplers.scores import episodes_of


@dataclass(frozen=True)
class SFLOptions(SamplerOptions):
    """Sampling for learnability (Rutherford et al. 2024)."""

    candidates: int = option(5000, at_least(1))
    """Smallest number of new tasks per scoring; they are played in batches as large as those of training."""
    trials: int = option(2, at_least(1))
    """Trials per candidate, over whose episodes its success rate is computed."""
    keep: int = option(1000, at_least(1))
    """Number of tasks with the highest learnability to keep until the next scoring."""
    every: int = option(50, at_least(1))
    """Iterations between two scorings."""
    share: float = option(0.5, SHARE)
    """Fraction of a batch that is drawn from the kept tasks; the others are new."""

    def build(self, agent: LearningAgent, split: str) -> SFL:
        return SFL(self, agent, split)


class SFL(TaskSampler):
    """The sampler; see the module's docstring."""

    def __init__(self, options: SFLOptions, agent: LearningAgent, split: str) -> None:
        super().__init__(agent, split)
        if type(self.family).success is TaskFamily.success:
            raise ValueError(unsolved(self.family))
        _check_trials(options, agent)
        self.options, self.watch = options, self._watch
        self.kept: Task = None  # the tasks with the highest learnability; None before the first scoring
        self.rate = torch.zeros(0, device=self.device)  # p of the kept tasks
        self.used = 0  # iterations since the last scoring
        self._scored: list[tuple[Task, Tensor]] = []  # candidates so far, and their p
        self._solved: list[Tensor] = []  # (B,) bool for each step of the current trial

    def propose(self, key: Key, n: int) -> Proposal:
        """Propose candidates, each `trials` times, if a scoring is due; otherwise a batch to learn from."""
        options = self.options
        if self.kept is None or self.used >= options.every:
            different = max(1, n // options.trials)
            rows = torch.arange(n, device=key.device) % different
            return Proposal(take(self.fresh(key, different), rows), learn=False)
        self.used += 1
        count = round(options.share * n)
        row = rng.integers(rng.fold(key, 0), count, num_rows(self.kept))
        if count == n:
            return Proposal(take(self.kept, row))
        return Proposal(concatenate([take(self.kept, row), self.fresh(rng.fold(key, 1), n - count)]))

    def score(self, proposal: Proposal, trial: list[Rollout]) -> None:
        """Record the success on candidates; keep the best of them once there are enough."""
        if proposal.learn:
            return
        rollout = trial[-1]
        solved = torch.stack(self._solved[-len(rollout.mask) :])
        self._solved.clear()
        tasks = num_rows(proposal.tasks)
        each = episode_success(rollout, solved, episodes_of(self.agent))
        rows = gathered(each.reshape(-1, self.agent.protocol.envs_per_task * each.shape[1]).mean(1))
        different = max(1, tasks // self.options.trials)
        row = torch.arange(tasks, device=rows.device) % different
        count = torch.zeros(different, device=rows.device).index_add_(0, row, torch.ones_like(rows))
        rate = torch.zeros(different, device=rows.device).index_add_(0, row, rows) / count
        self._scored.append((take(proposal.tasks, slice(0, different)), rate))
        if sum(len(rate) for _, rate in self._scored) >= self.options.candidates:
            self._choose()

    def _choose(self) -> None:
        """Keep the candidates with the highest learnability."""
        tasks = concatenate([tasks for tasks, _ in self._scored])
        rate = torch.cat([rate for _, rate in self._scored])
        best = learnability(rate).argsort(descending=True, stable=True)[: self.options.keep]
        self.kept, self.rate, self.used = take(tasks, best), rate[best], 0
        self._scored.clear()

    def _watch(self, env: BatchEnv) -> None:
        success = self.family.success(env.task, env.final_state)
        if success is None:  # another project's environment may not report success
            raise WrongResult(unsolved(self.family))
        self._solved.append(success)

    def metrics(self) -> dict[str, float]:
        return {
            "tasks/learnability": float(learnability(self.rate).mean()),
            "tasks/success": float(self.rate.mean()),
            "tasks/age": float(self.used),
        }

    def state_dict(self) -> dict[str, Tensor]:
        state = {"rate": self.rate, "used": torch.tensor(self.used)}
        return state | ({} if self.kept is None else {f"task.{k}": v for k, v in named_leaves(self.kept).items()})

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.rate, self.used = state["rate"].to(self.device).clone(), int(state["used"])
        self.kept = None
        self._scored.clear()
        self._solved.clear()
        if len(self.rate):
            self.kept = tasks_from(state, "task.", pattern_task(self.family), self.device)
            if len(leaves(self.kept)[0]) != len(self.rate):
                raise ValueError("its tasks and their rates of success differ in number")


def _check_trials(options: SFLOptions, agent: LearningAgent) -> None:
    """Raise ValueError if candidates are played too rarely to estimate their learnability."""
    tasks, trials = agent.config.meta_batch_size, options.trials
    if trials > tasks:
        raise ValueError(
            f"SFL plays a candidate {trials} times in one meta-batch: trials must not exceed meta_batch_size = {tasks}."
        )
    if trials * episodes_of(agent) * agent.protocol.envs_per_task < 2:
        raise ValueError("SFL needs at least two episodes per candidate, as p (1 - p) is 0 for one: set trials to 2.")


def learnability(rate: Tensor) -> Tensor:
    """Return p (1 - p), the variance of solving a task."""
    return rate * (1.0 - rate)


def unsolved(family: AnyFamily) -> str:
    """Return the message for a family that does not report whether a task is solved."""
    name = type(family).__name__
    return (
        f"SFL needs to know whether a task is solved, and {name} does not say: implement success(task, state), or "
        "choose another task sampler, such as plr."
    )
