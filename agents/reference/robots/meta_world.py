"""Meta-World's own scripted policies as a reference agent that knows the task."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metarl.agents.random import FixedAgent, scripted
from metarl.agents.reference.told import told
from metarl.core.batch_env import Step
from metarl.core.family import Key, Task
from metarl.core.rollout import Acted, Memory
from metarl.envs.meta_world.benchmarks import MetaWorld
from metarl.envs.meta_world.simulator import MetaWorldSimulator


class Told(NamedTuple):
    """The knowledge of a `MetaWorldScript`."""

    environment: Tensor  # (B,) int64
    goal: Tensor  # (B, 3) float64 metres


class MetaWorldScript(FixedAgent):
    """Meta-World's scripted policy for each environment, given the goal, which a separate simulator computes.

    Source: Yu et al. 2019, "Meta-World".
    """

    def __init__(self, family: MetaWorld, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        from metaworld.policies import ENV_POLICY_MAP

        self.family = family
        self._policies = [ENV_POLICY_MAP[name]() for name in family.environments]
        self._simulators: dict[int, MetaWorldSimulator] = {}
        self._goals: dict[tuple[int, bytes], np.ndarray] = {}

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        task = told(task)
        goals = [self._goal(*row) for row in zip(task.environment.tolist(), task.layout.cpu().numpy(), strict=True)]
        return Told(task.environment, torch.from_numpy(np.stack(goals)).to(self.device))

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        seen = torch.cat([step.obs[:, :-3].to(torch.float64), memory.goal], dim=1).cpu().numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about actions outside the bounds, which are clipped below
            rows = zip(memory.environment.tolist(), seen, strict=True)
            actions = np.stack([self._policies[index].get_action(obs) for index, obs in rows])
        action = torch.from_numpy(actions.clip(-1.0, 1.0).astype(np.float32)).to(self.device)
        return scripted(action, step), memory

    def _goal(self, environment: int, layout: np.ndarray) -> np.ndarray:
        key = environment, layout.tobytes()
        if key not in self._goals:
            if environment not in self._simulators:
                layouts = self.family.simulators_of.layouts()
                name = self.family.environments[environment]
                self._simulators[environment] = MetaWorldSimulator(name, exact=layouts.get(name))
            self._goals[key] = self._simulators[environment].goal(layout)
        return self._goals[key]
