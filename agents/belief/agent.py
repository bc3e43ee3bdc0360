"""PPO on the exact belief: the agent is given the inference and learns only how to act on it.

The posterior over the tasks of a split, given everything the agent has seen (`metarl.core.beliefs`), together with the
time is a sufficient statistic of a trial: it makes the Bayes-adaptive process Markov, and the best policy of that
process is Bayes-optimal (Duff 2002; Zintgraf et al. 2020, who learn an approximation of the belief). The agent
therefore needs no memory but the belief: its policy is an MLP on the observation, the belief's features and the
fraction of the trial that is over. Like RL² it is trained with PPO (`metarl.agents.belief.ppo`). Its lead over a
recurrent policy is what that policy loses by having to learn inference.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.agents.belief.config import BeliefConfig
from metarl.agents.belief.network import BeliefNetwork
from metarl.agents.belief.ppo import PPOOnBelief
from metarl.core.beliefs.belief import Belief
from metarl.core.beliefs.places import goal_masses
from metarl.core.family import TaskFamily
from metarl.core.rollout import Memory, Rollout
from metarl.core.tree import features
from metarl.learning.encoder import scale_tasks


class BeliefPPO(PPOOnBelief, config=BeliefConfig):
    """The agent; see the module's docstring."""

    config: BeliefConfig
    belief: Belief

    def __init__(
        self, config: BeliefConfig, family: TaskFamily, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        """Make an untrained agent. Raises ValueError for a family without a belief over the tasks of the split."""
        self.config, self.family, self.device = config, family, torch.device(device)
        belief = family.belief(config.split)
        if belief is None:
            raise ValueError(
                f"The agent Belief needs an exact belief about the tasks of {config.split!r}, and {family!r} has none: "
                "choose another family, such as GridNavi or BernoulliBandit, or another agent, such as RL2."
            )
        self.belief = belief
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = BeliefNetwork(config, family, belief.size, features(scale_tasks(family))).to(self.device)
        self._setup_training(seed)

    def update(self, trial: list[Rollout], progress: float = 0.0) -> dict[str, float]:
        metrics = super().update(trial, progress)
        if self.config.norm_obs:  # only now: the likelihood ratio is 1 under the scales that the policy acted with
            (rollout,) = trial
            self.net.scaling.follow(rollout.step.obs, rollout.mask, 1.0 / self.updates)
        return metrics

    def goal_map(self, memory: Memory, points: Tensor) -> Tensor:
        """Return the posterior mass of the goal at the P `points` of the family's ground, float32 ``(B, P)``.

        If a task has several places, their masses are averaged. Raises ValueError for a family without a ground.
        """
        ground, weighted = self.family.ground(self.config.split), self.belief.weighted_tasks(memory.belief)
        if ground is None or weighted is None:
            raise ValueError(f"The tasks of {self.family!r} are not places, so there is no map of goals.")
        masses = goal_masses(ground, *weighted, points)
        return torch.stack(list(masses.values())).mean(0)
