"""metarl's own contenders of the benchmark harness."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium
import torch

import metarl
from benchmarks.works import Work
from metarl.agents import MAMLConfig, RL2Config
from metarl.agents.maml import PPOStep, TRPOStep
from metarl.core import rng
from metarl.core.agent import AgentConfig
from metarl.core.batch_env import Outcome, make_env
from metarl.core.family import Key, Task, TaskFamily
from metarl.core.rollout import run_trial
from metarl.core.tree import stack
from metarl.fast.capture import Captured
from metarl.fast.runtime import tune


def build(work: Work, threads: int, recorded: bool = True) -> Callable[[], int]:
    """A function that does the work once and returns the environment steps it took.

    Without `recorded` nothing is made a CUDA graph of, to see what that brings.
    """
    tune(threads)
    return stepping(work, recorded) if work.kind == "stepping" else training(work, recorded)


def family_of(work: Work) -> TaskFamily:
    """The family in the work's size; a work without episodes takes the family's own."""
    if work.episodes == 0:
        return metarl.make(work.family)
    horizon = {"horizon": work.horizon} if work.horizon > 1 else {}
    return metarl.make(work.family, episodes_per_trial=work.episodes, **horizon)


def training(work: Work, recorded: bool = True) -> Training:
    """The training of a work; one call is one iteration."""
    config: AgentConfig
    if work.kind == "rl2":
        config = RL2Config(
            meta_batch_size=work.rows,
            hidden_size=work.hidden,
            update_epochs=work.epochs,
            num_minibatches=work.minibatches,
        )
    else:
        config = MAMLConfig(
            meta_batch_size=work.rows,
            fast_batch_size=work.trajectories,
            hidden_sizes=(work.hidden, work.hidden),
            outer=PPOStep(update_epochs=work.epochs) if work.outer == "ppo" else TRPOStep(),
        )
    return Training(config, family_of(work), torch.device(work.device), recorded)


class Training:
    """One call is one iteration of meta-training on new tasks, and returns its environment steps."""

    def __init__(self, config: AgentConfig, family: TaskFamily, device: torch.device, recorded: bool = True) -> None:
        self.family, self.tasks = family, config.meta_batch_size
        self.agent = config.build(family, 0, device)
        self.root, self.number = rng.key(1, device), 0
        self.play = Captured(lambda tasks, key: run_trial(self.agent, family, tasks, key), device)
        self.parts: dict[str, Captured] = {"Rollouts": self.play, **self.agent.captured}
        """What a GPU may replay."""
        self.parts |= self.agent.captured
        if not recorded:
            for part in self.parts.values():
                part.why_not = part.why_not or "recording is off"

    def __call__(self) -> int:
        self.number += 1
        key = rng.fold(self.root, self.number)
        trial = self.play(self.family.sample_tasks(rng.fold(key, 0), self.tasks), rng.fold(key, 1))
        self.agent.update(trial)
        return int(sum(rollout.mask.sum() for rollout in trial))


def stepping(work: Work, recorded: bool = True) -> Callable[[], int]:
    """One call steps all rows through a trial, 200 steps at most, with random actions drawn beforehand.

    On a GPU that is one recording, and the outcomes of all steps are kept.
    """
    family, device = family_of(work), torch.device(work.device)
    steps = min(family.horizon * family.episodes_per_trial, 200)
    actions = [action.to(device) for action in random_actions(family, steps, work.rows)]
    key = rng.key(0, device)
    task = family.sample_tasks(key, work.rows)
    if device.type != "cpu":
        return ReplayedSteps(family, task, key, actions, recorded)
    env = make_env(family, task, key)

    def call() -> int:
        env.reset()
        for action in actions:
            env.step(action)
        return steps * work.rows

    return call


class ReplayedSteps:
    """One call steps all rows through the actions, and keeps what came of every step."""

    def __init__(
        self, family: TaskFamily, task: Task, key: Key, actions: list[torch.Tensor], recorded: bool = True
    ) -> None:
        self.key, self.steps = key, sum(len(action) for action in actions)

        def play(key: Key) -> Outcome:
            env = make_env(family, task, key)
            env.reset()
            # Stacked: what a recording gives back is copied, tensor by tensor.
            return stack([env.step(action)[0] for action in actions])

        self.play = Captured(play, key.device)
        self.parts = {"Rollouts": self.play}
        if not recorded:
            self.play.why_not = self.play.why_not or "recording is off"

    def __call__(self) -> int:
        self.play(self.key)
        if self.key.device.type == "cuda":
            torch.cuda.synchronize()
        return self.steps


def random_actions(family: TaskFamily, steps: int, rows: int) -> list[torch.Tensor]:
    """Uniform over the action space: one tensor of all rows per step."""
    space = family.action_space
    generator = torch.Generator().manual_seed(0)
    if isinstance(space, gymnasium.spaces.Discrete):
        return list(torch.randint(int(space.n), (steps, rows), generator=generator))
    low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
    return list(low + (high - low) * torch.rand((steps, rows, *space.shape), generator=generator))
