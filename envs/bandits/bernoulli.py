"""Bernoulli bandits: arms that pay 1 or nothing."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.beliefs.belief import Belief
from metarl.core.checks import within
from metarl.core.errors import whole_number
from metarl.core.family import Key, Sketch, TaskFamily
from metarl.envs.bandits.arms import BernoulliArms as BernoulliArms
from metarl.envs.bandits.beliefs import BetaArms, ListedArms
from metarl.envs.bandits.pictures import probabilities
from metarl.envs.bandits.pull import Pull, blank, blank_space, no_pull


def pull(task: BernoulliArms, arm: Tensor, key: Key) -> tuple[Pull, Tensor, Tensor]:
    """Pull `arm` (B,) and return what `TaskFamily.step` returns; the arm pays with its probability."""
    probs = task.probs.gather(1, arm[:, None])
    reward = (rng.uniform(key, 1) < probs)[:, 0].to(torch.float32)
    return Pull(arm, reward), reward, torch.zeros_like(arm, dtype=torch.bool)


class BernoulliBandit(TaskFamily[BernoulliArms, Pull]):
    """k slot machines that pay 1 or nothing; learn within a trial which one pays most often.

    Description:
        An episode is one pull (horizon 1); a trial is `episodes_per_trial` pulls of the same machines. The machines
        have no state: the agent must find out which arm pays best, at little cost.

    What varies:
        The probabilities ``p`` of the k arms: `BernoulliArms.probs`.

    Splits:
        - `train`, `valid`, `test`: p_i ~ U[0, 1) independently, in disjoint random streams.
        - `ood`: poor machines, p_i ~ U[0, 0.3). All arms of a training task are this poor with probability 0.3^k
          (0.24 % for 5 arms; below 1 % for 4 or more arms).

    Actions:
        ========  ==================
        action    meaning
        ========  ==================
        0 … k-1   pull this arm
        ========  ==================

    Observations:
        =====  ===================  ======  =====
        index  meaning              range   unit
        =====  ===================  ======  =====
        0      nothing: constant 0  [0, 1]  none
        =====  ===================  ======  =====

    Rewards:
        1 with probability p of the pulled arm, otherwise 0.

    Endings:
        Never terminated; truncated after one step.

    Optimum:
        Known task: max p, k / (k + 1) on average (5 arms: 0.8333). Random: mean p, 0.5 on average. Bayes-optimal for 5
        arms and 100 pulls: at least 78.62 per trial; Thompson sampling 75.04.

    Source:
        Duan et al. 2016, "RL²", section 3.1 (5, 10, 50 arms; 10, 100, 500 pulls).

    Version history:
        v0: first version.
    """

    random_start = False

    def __init__(self, num_arms: int = 5, episodes_per_trial: int = 100) -> None:
        self.num_arms = whole_number("num_arms", num_arms, least=2)
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.horizon = 1
        self.observation_space = blank_space()
        self.action_space = gymnasium.spaces.Discrete(num_arms)

    def draw_tasks(self, keys: Key, split: str) -> BernoulliArms:
        probs = rng.uniform(keys, self.num_arms)
        return BernoulliArms(0.3 * probs if split == "ood" else probs)

    @property
    def task_space(self) -> dict[str, gymnasium.Space[Any]]:
        return {"probs": gymnasium.spaces.Box(0.0, 1.0, (self.num_arms,), np.float32)}

    def check_task(self, task: BernoulliArms) -> None:
        within("BernoulliArms.probs", task.probs, 0, 1)

    def reset(self, task: BernoulliArms, key: Key) -> Pull:
        return no_pull(key)

    def observe(self, task: BernoulliArms, state: Pull) -> Tensor:
        return blank(state.reward)

    def step(self, task: BernoulliArms, state: Pull, action: Tensor, key: Key) -> tuple[Pull, Tensor, Tensor]:
        return pull(task, action, key)

    def belief(self, split: str) -> Belief:
        listed = self.tasks_of(split)
        if listed is not None:
            return ListedArms(listed)
        return BetaArms(self.num_arms, self.episodes_per_trial, 0.3 if split == "ood" else 1.0)

    def optimal_action(self, task: BernoulliArms, obs: Tensor) -> Tensor:
        return task.probs.argmax(-1)

    def oracle(self, task: BernoulliArms) -> Tensor:
        return task.probs.amax(-1)

    def random_return(self, task: BernoulliArms) -> Tensor:
        return task.probs.mean(-1)

    def sketch(self, task: BernoulliArms, episodes: int = 1) -> Sketch[Pull]:
        """Draw one line per arm: its probability as a bar, then its pulls over time, blue if it paid, else red."""
        return probabilities(task.probs[0].tolist(), pulls=episodes)
