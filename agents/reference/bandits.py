"""Rule-based agents for Bernoulli bandits: posterior means, epsilon-greedy, UCB1, Thompson sampling."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metarl.agents.random import FixedAgent, scripted
from metarl.core import rng
from metarl.core.batch_env import Step
from metarl.core.family import Key, Task
from metarl.core.rollout import Acted, Memory


class Counts(NamedTuple):
    """The rewards of a Bernoulli bandit so far: float32 ``(B, num_arms)`` each."""

    successes: Tensor
    failures: Tensor


def counted(counts: Counts, step: Step) -> Counts:
    """Add the pull that `step` reports to `counts`; the first step of a trial reports none."""
    arms = torch.arange(counts.successes.shape[1], device=step.prev_action.device)
    pulled = (step.prev_action[:, None] == arms).to(torch.float32)  # NO_ACTION equals no arm
    won = pulled * step.prev_reward[:, None]
    return Counts(counts.successes + won, counts.failures + pulled - won)


class BanditAgent(FixedAgent):
    """Counts the successes and failures of `num_arms` Bernoulli arms; subclasses choose an arm from the counts."""

    def __init__(self, num_arms: int, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.num_arms = num_arms

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        zeros = torch.zeros(num_tasks, self.num_arms, device=self.device)
        return Counts(zeros, zeros)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        counts = counted(memory, step)
        return scripted(self.choose(counts, key), step), counts

    def choose(self, counts: Counts, key: Key) -> Tensor:
        """Return the arm to pull in each row, int64 ``(B,)``."""
        raise NotImplementedError


class PosteriorMeanBandit(BanditAgent):
    """Greedy: pulls the arm with the best posterior mean, with random ties, and never explores on purpose.

    How ties are broken matters: with 5 arms × 10 pulls, random ties earn 6.626, the first of them 6.569, and the least
    pulled of them 6.657.
    """

    def choose(self, counts: Counts, key: Key) -> Tensor:
        mean = (counts.successes + 1.0) / (counts.successes + counts.failures + 2.0)
        best = mean == mean.amax(1, keepdim=True)
        return first_best(torch.where(best, rng.uniform(key, self.num_arms), -1.0))


class EpsilonGreedyBandit(PosteriorMeanBandit):
    """Pulls a random arm with probability `epsilon`, otherwise one with the best posterior mean, with random ties.

    A baseline of RL² (Duan et al. 2016), which tunes epsilon for every number of arms and pulls.
    """

    def __init__(self, num_arms: int, epsilon: float = 0.05, device: torch.device | str = "cpu") -> None:
        super().__init__(num_arms, device)
        if not 0.0 <= epsilon <= 1.0:
            raise ValueError(f"epsilon must lie in [0, 1], got {epsilon!r}.")
        self.epsilon = epsilon

    def choose(self, counts: Counts, key: Key) -> Tensor:
        explores = rng.uniform(rng.fold(key, 1), 1)[:, 0] < self.epsilon
        anywhere = rng.integers(rng.fold(key, 2), 1, self.num_arms)[:, 0]
        return torch.where(explores, anywhere, super().choose(counts, rng.fold(key, 0)))


class UCB1Bandit(BanditAgent):
    """Pulls every arm once, then the arm with the highest mean + √(bonus · ln t / pulls) (Auer et al. 2002: bonus = 2).

    RL² (Duan et al. 2016) compares with a tuned bonus: the guarantee is for long trials, and a smaller bonus earns
    more.
    """

    def __init__(self, num_arms: int, bonus: float = 2.0, device: torch.device | str = "cpu") -> None:
        super().__init__(num_arms, device)
        self.bonus = bonus

    def choose(self, counts: Counts, key: Key) -> Tensor:
        pulls = counts.successes + counts.failures
        total = pulls.sum(1, keepdim=True).clamp_min(1.0)
        once = pulls.clamp_min(1.0)
        index = counts.successes / once + torch.sqrt(self.bonus * total.log() / once)
        return first_best(torch.where(pulls == 0, torch.inf, index))


class ThompsonBandit(BanditAgent):
    """Draws each arm's probability from its posterior and pulls the best draw (Thompson 1933)."""

    def choose(self, counts: Counts, key: Key) -> Tensor:
        # For integers a and b, Beta(a, b) is A / (A + B), where A and B are sums of a and b exponential variates.
        wins, losses = counts.successes.long(), counts.failures.long()
        keys = rng.fold(key[:, None], torch.arange(self.num_arms, device=key.device))
        sums = rng.exponential(keys, int((wins + losses).max()) + 2).cumsum(-1)  # (B, arms, n)
        a = sums.gather(-1, wins[..., None])
        both = sums.gather(-1, (wins + losses + 1)[..., None])
        return first_best((a / both).squeeze(-1))


def first_best(score: Tensor) -> Tensor:
    """Return the first arm with the highest score ``(B, arms)``; argmax gives no guarantee about ties."""
    score = score.to(torch.float32)
    arms = torch.arange(score.shape[1], device=score.device)
    return torch.where(score == score.amax(1, keepdim=True), arms, score.shape[1]).amin(1)


def any_best(score: Tensor, key: Key) -> Tensor:
    """Return an arm with the highest score ``(B, arms)``, with random ties: int64 ``(B,)``."""
    luck = rng.uniform(rng.fold(key, 1), score.shape[1])
    return torch.where(score == score.amax(1, keepdim=True), luck, -1.0).argmax(1)
