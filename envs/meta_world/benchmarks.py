"""Meta-World's benchmarks as families: ML1, ML10 and ML45 with hidden goals, MT10 with observed goals."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from metarl.core.errors import short, whole_number
from metarl.core.tree import num_rows
from metarl.envs.adapter.simulated import SimulatorFamily
from metarl.envs.adapter.simulator import TaskRow
from metarl.envs.meta_world.library import NUMBERS, full_name, names, padded, published
from metarl.envs.meta_world.simulator import MakeMetaWorld, no_gl

HORIZON, GOALS = 500, 50


class Manipulation(NamedTuple):
    """The environment, and the layout of its objects."""

    environment: Tensor  # (B,) int64: the index of its name in the family's `environments`
    layout: Tensor  # (B, 6) float32 metres: Meta-World's `rand_vec` (the thing's place, the goal, or both), then zeros


class MetaWorld(SimulatorFamily[Manipulation]):
    """A benchmark of Meta-World; the subclasses say which.

    `goal_seed` is the seed of ``metaworld.ML10(seed=…)``, whose tasks these are.
    """

    benchmark: ClassVar[str]
    goal_seen: ClassVar[bool] = False
    counts_success: ClassVar[bool] = True
    shows_task: ClassVar[bool] = True  # the object's position differs between tasks
    terminates: ClassVar[bool] = False
    random_start: ClassVar[bool] = False
    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test")

    def __init__(
        self,
        env: str | None = None,
        goal_seed: int = 0,
        test_goals: int = GOALS,
        horizon: int = HORIZON,
        episodes_per_trial: int = 10,
        workers: int = 0,
        max_rows: int = 64,
        frames: bool = False,
    ) -> None:
        self._only = env
        self._train, self._test = names(self.benchmark, env)
        self.goal_seed = whole_number("goal_seed", goal_seed, 0)
        self.simulators_of = MakeMetaWorld(self.benchmark, env, goal_seed, self.goal_seen)
        super().__init__(self.simulators_of, workers, max_rows, frames)
        self.test_goals = whole_number("test_goals", test_goals)
        self.horizon = whole_number("horizon", horizon)
        if horizon > HORIZON:
            raise ValueError(f"horizon must be at most {HORIZON}, Meta-World's own limit, got {short(horizon)}.")
        if test_goals > GOALS:
            raise ValueError(f"test_goals must be at most {GOALS}, as many as are published, got {short(test_goals)}.")
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (39,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)

    @property
    def environments(self) -> tuple[str, ...]:
        """The names that a task's `environment` indexes: those of training, then those only for test."""
        return tuple(dict.fromkeys((*self._train, *self._test)))

    def enumerate_tasks(self, split: str) -> Manipulation:
        tasks = published(self.benchmark, self._only, self.goal_seed)
        shown, number = (tasks.test, self.test_goals) if split == "test" else (tasks.train, GOALS)
        chosen = [pair for first in range(0, len(shown), GOALS) for pair in shown[first : first + number]]
        index = {name: number for number, name in enumerate(self.environments)}
        return Manipulation(
            torch.tensor([index[name] for name, _ in chosen]),
            torch.from_numpy(np.stack([padded(vector) for _, vector in chosen])),
        )

    def kind(self, task: TaskRow) -> str:
        """Return the name of the task's environment."""
        return self.environments[int(task["environment"])]

    @property
    def no_picture(self) -> str:
        return no_gl()

    def check_task(self, task: Manipulation) -> None:
        count, index = len(self.environments), task.environment
        if bool(((index < 0) | (index >= count)).any()):
            wrong = int(index[(index < 0) | (index >= count)][0])
            raise ValueError(f"environment must be from 0 to {count - 1}, an index of environments, got {wrong}.")
        if task.layout.shape[1:] != (NUMBERS,):
            raise ValueError(f"layout must have {NUMBERS} numbers, got the shape {tuple(task.layout.shape)}.")

    def rows_by_environment(self, task: Manipulation) -> dict[str, Tensor]:
        """Return the rows of each environment among these tasks: int64 indices, by the environment's name."""
        rows = torch.arange(num_rows(task), device=task.environment.device)
        found = {name: rows[task.environment == index] for index, name in enumerate(self.environments)}
        return {name: each for name, each in found.items() if len(each)}


class ML1(MetaWorld):
    """A robot arm that must master one skill, with goals that only the reward reveals. Needs Meta-World.

    Description:
        One environment of Meta-World (`env`, any of the 50), with separate goals for training and testing. A Sawyer arm
        moves its hand by at most 1 cm along each axis per action and opens and closes its gripper. Each environment has
        its own dense reward, from 0 to 10 per step.

    What varies:
        Where the object starts and where the goal is: `Manipulation.layout`, Meta-World's own `rand_vec` (3 numbers in
        24 environments, 6 in 26, padded with zeros).

    Splits:
        - `train`: the 50 tasks of ``metaworld.ML1(env, seed=goal_seed).train_tasks``.
        - `test`: its 50 `test_tasks`, or the first `test_goals` of them.
        - `valid`: 16 of the training tasks, for tuning; they are also trained on.

        Meta-World draws the test goals with the seed `goal_seed` + 1: a run with another `goal_seed` may train on the
        test goals of this one.

    Actions:
        =====  =============================================  =======  ===============
        index  meaning                                        range    unit
        =====  =============================================  =======  ===============
        0 … 2  move of the hand along x, y, z                 [-1, 1]  cm
        3      gripper: closes above 0                        [-1, 1]  share of effort
        =====  =============================================  =======  ===============
        An action beyond the range is clipped to it.

    Observations:
        =======  ===========================================  =========  ========
        index    meaning                                      range      unit
        =======  ===========================================  =========  ========
        0 … 2    position of the hand                         workspace  m
        3        how far the gripper is open                  [0, 1]     10 cm
        4 … 10   position and quaternion of the first object  unbounded  m, none
        11 … 17  of the second object, or 0                   unbounded  m, none
        18 … 35  the same 18 numbers one step earlier         as above   as above
        36 … 38  0: the goal is hidden                        0          m
        =======  ===========================================  =========  ========
        The first observation shows where the object starts, which differs between the tasks of one environment: it
        identifies a training task among the 50, and reveals nothing about the goal of a new one.

    Rewards:
        Meta-World's own (version 2), from 0 to 10.

    Endings:
        Never terminated; truncated after `horizon` steps, at most 500. `success` is Meta-World's; an episode counts as
        solved if it succeeds at any of its steps.

    Optimum:
        Not known. The baseline `oracle`, Meta-World's own scripted policies, which know the goal, solves nearly every
        episode.

    Differs from the source:
        ============  =======================================  ===============================================
        what          here                                     there
        ============  =======================================  ===============================================
        observations  float32                                  float64
        rewards       of actions clipped to ±1                 of the action as it is
        layout        float32 in the task; a published one is  float64
                      played with its float64 digits
        tests         continue after a success                 end at a success in Meta-World's own evaluation
        ============  =======================================  ===============================================

    Source:
        Yu et al. 2019, "Meta-World", and McLean et al. 2025, "Meta-World+" (version 3 of the environments); 10 episodes
        of adaptation and 3 of evaluation on 40 goals of each environment are their protocol.

    Version history:
        v0: first version, with Meta-World 3.1.1.
    """

    benchmark: ClassVar[str] = "ML1"

    def __init__(
        self,
        env: str = "reach-v3",
        goal_seed: int = 0,
        test_goals: int = GOALS,
        horizon: int = HORIZON,
        episodes_per_trial: int = 10,
        workers: int = 0,
        max_rows: int = 64,
        frames: bool = False,
    ) -> None:
        self.env = full_name(env)
        super().__init__(self.env, goal_seed, test_goals, horizon, episodes_per_trial, workers, max_rows, frames)


class _Several(MetaWorld):
    """A benchmark of several environments."""

    def __init__(
        self,
        goal_seed: int = 0,
        test_goals: int = GOALS,
        horizon: int = HORIZON,
        episodes_per_trial: int = 10,
        workers: int = 0,
        max_rows: int = 64,
        frames: bool = False,
    ) -> None:
        super().__init__(None, goal_seed, test_goals, horizon, episodes_per_trial, workers, max_rows, frames)


class ML10(_Several):
    """A robot arm that learns new skills: ten environments to train on, five others to test on. Needs Meta-World.

    Description:
        As `ML1`, with reach, push, pick-place, door-open, drawer-close, button-press-topdown, peg-insert-side,
        window-open, sweep and basketball for training, and drawer-open, door-close, shelf-place, sweep-into and
        lever-pull for testing.

    What varies:
        The environment (`Manipulation.environment`, an index of the family's `environments`), and where its objects and
        its goal are (`Manipulation.layout`).

    Splits:
        - `train`: 50 tasks of each of the 10 environments, those of ``metaworld.ML10(seed=goal_seed).train_tasks``.
        - `test`: 50 tasks, or the first `test_goals`, of each of the 5 test environments.
        - `valid`: a third of the training tasks, for tuning; they are also trained on.

    Actions:
        As `ML1`.

    Observations:
        As `ML1`. The first observation identifies a training task: it shows which environment it is, and where the
        object starts.

    Rewards:
        Meta-World's own (version 2), from 0 to 10.

    Endings:
        As `ML1`.

    Optimum:
        Not known. The baseline `oracle`, Meta-World's own scripted policies, which know the goal, solves nearly every
        episode.

    Differs from the source:
        As `ML1`.

    Source:
        Yu et al. 2019, "Meta-World", and McLean et al. 2025, "Meta-World+".

    Version history:
        v0: first version, with Meta-World 3.1.1.
    """

    benchmark: ClassVar[str] = "ML10"


class ML45(_Several):
    """A robot arm that learns new skills: 45 environments to train on, five others to test on. Needs Meta-World.

    Description:
        As `ML1`, with bin-picking, box-close, hand-insert, door-lock and door-unlock for testing, and all others for
        training.

    What varies:
        The environment (`Manipulation.environment`, an index of the family's `environments`), and where its objects and
        its goal are (`Manipulation.layout`).

    Splits:
        - `train`: 50 tasks of each of the 45 environments, those of ``metaworld.ML45(seed=goal_seed).train_tasks``.
        - `test`: 50 tasks, or the first `test_goals`, of each of the 5 test environments.
        - `valid`: a third of the training tasks, for tuning; they are also trained on.

    Actions:
        As `ML1`.

    Observations:
        As `ML1`. The first observation identifies a training task: it shows which environment it is, and where the
        object starts.

    Rewards:
        Meta-World's own (version 2), from 0 to 10.

    Endings:
        As `ML1`.

    Optimum:
        Not known. The baseline `oracle`, Meta-World's own scripted policies, which know the goal, solves nearly every
        episode.

    Differs from the source:
        As `ML1`.

    Source:
        Yu et al. 2019, "Meta-World", and McLean et al. 2025, "Meta-World+".

    Version history:
        v0: first version, with Meta-World 3.1.1.
    """

    benchmark: ClassVar[str] = "ML45"


class MT10(_Several):
    """A robot arm with ten skills and visible goals: multi-task learning. Needs Meta-World.

    Description:
        As `ML1`, but nothing is hidden: reach, push, pick-place, door-open, drawer-open, drawer-close,
        button-press-topdown, peg-insert-side, window-open and window-close, with the goal in the observation. It
        measures learning without adaptation.

    What varies:
        The environment (`Manipulation.environment`, an index of the family's `environments`), and where its objects and
        its goal are (`Manipulation.layout`).

    Splits:
        - `train`: 50 tasks of each of the 10 environments, those of ``metaworld.MT10(seed=goal_seed).train_tasks``.
        - `all`: the same tasks. MT10 has no test tasks.
        - `valid`: a third of the training tasks, for tuning; they are also trained on.

    Actions:
        As `ML1`.

    Observations:
        As `ML1`, with the position of the goal as the last three numbers. Meta-World's one-hot environment number is
        not included.

    Rewards:
        Meta-World's own (version 2), from 0 to 10.

    Endings:
        As `ML1`.

    Optimum:
        Not known. The baseline `oracle`, Meta-World's own scripted policies, solves nearly every episode.

    Differs from the source:
        As `ML1`.

    Source:
        Yu et al. 2019, "Meta-World", and McLean et al. 2025, "Meta-World+".

    Version history:
        v0: first version, with Meta-World 3.1.1.
    """

    benchmark: ClassVar[str] = "MT10"
    goal_seen: ClassVar[bool] = True
    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "all")

    def __init__(
        self,
        goal_seed: int = 0,
        horizon: int = HORIZON,
        episodes_per_trial: int = 1,
        workers: int = 0,
        max_rows: int = 64,
        frames: bool = False,
    ) -> None:
        super().__init__(goal_seed, GOALS, horizon, episodes_per_trial, workers, max_rows, frames)
