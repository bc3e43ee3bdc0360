"""The protocol of metarl-bench: problems, suites of problems, and agents. Any change must change `VERSION`.

A problem is a family with its options and the evaluation tasks. Agents are trained by their own presets, for any
number of steps, on the split that the problem names; the training effort is reported with the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from metarl.core.errors import unknown
from metarl.core.family import AnyFamily
from metarl.core.registry import make

VERSION = 1
"""Version of the protocol; results of different versions are not compared."""
SEED = 0
"""Seed of the evaluations' tasks and noise."""


@dataclass(frozen=True)
class Problem:
    """A family and its evaluation tasks."""

    name: str
    id: str
    options: Mapping[str, Any] = field(default_factory=dict)
    split: str = "test"
    """The evaluated split. With ``all``, agents also train on these tasks, as in the literature."""
    tasks: int = 200
    """Largest number of distinct tasks."""

    def family(self) -> AnyFamily:
        """Make the family."""
        return make(self.id, **self.options)


PROBLEMS = {
    problem.name: problem
    for problem in (
        Problem("bernoulli_bandit_n10", "metarl/BernoulliBandit-v0", {"episodes_per_trial": 10}),
        Problem("bernoulli_bandit", "metarl/BernoulliBandit-v0", {"episodes_per_trial": 100}),
        Problem("informative_bandit", "metarl/InformativeBandit-v0", split="all"),
        Problem("tabular_mdp", "metarl/TabularMDP-v0"),
        Problem("gridnavi", "metarl/GridNavi-v0", split="all"),
        Problem("navigation2d", "metarl/Navigation2D-v0"),
        Problem("sparse_point_robot", "metarl/SparsePointRobot-v0"),
        Problem("tmaze", "metarl/TMaze-v0", split="all"),
        Problem("darkroom", "metarl/DarkRoom-v0", {"episodes_per_trial": 10}, split="all"),
        Problem("dark_key_to_door", "metarl/DarkKeyToDoor-v0"),
        Problem("dependent_bandit_easy", "metarl/DependentBandit-v0", {"structure": "easy"}, split="all"),
        Problem("dependent_bandit_medium", "metarl/DependentBandit-v0", {"structure": "medium"}, split="all"),
        Problem("dependent_bandit_hard", "metarl/DependentBandit-v0", {"structure": "hard"}, split="all"),
        Problem("two_step", "metarl/TwoStep-v0"),
        Problem("harlow", "metarl/Harlow-v0"),
        Problem("wall_maze", "metarl/WallMaze-v0"),
        Problem("room_navi", "metarl/RoomNavi-v0", split="all"),
        Problem("cartpole", "metarl/CartPole-v0"),
        Problem("pendulum", "metarl/Pendulum-v0"),
        Problem("half_cheetah_vel", "metarl/HalfCheetahVel-v0"),
    )
}
"""Name → problem. The name is also the second part of the names of its presets."""

SUITES: dict[str, tuple[str, ...]] = {
    "small": (
        "bernoulli_bandit_n10", "bernoulli_bandit", "informative_bandit", "tabular_mdp", "gridnavi", "navigation2d",
        "sparse_point_robot", "tmaze",
    ),
    "full": tuple(PROBLEMS),
}  # fmt: skip
"""Problems by suite. All of `small` have a known optimum, so that scores can be averaged over them."""

BASELINES = ("random", "oracle")
"""Agents that are not trained. The oracle knows the task, so it is a bound, not a competitor."""
LEARNERS = (
    "rl2", "memoryless", "hyper", "varibad", "belief", "r2d2", "sac", "td3", "pearl", "maml", "fomaml", "anil",
    "metasgd", "promp", "reptile", "es", "es_maml", "dpt", "dagger", "ad", "ppo", "recurrent_ppo",
)  # fmt: skip
"""Agents that are trained, by the first part of the names of their presets."""
DEFAULT = ("random", "oracle", "rl2", "maml")
"""Default agents of a benchmark."""


def problems_of(suite: str) -> list[Problem]:
    """Return the problems of a suite. Raises ValueError if the suite is unknown."""
    if suite not in SUITES:
        raise ValueError(unknown("suite", suite, SUITES))
    return [PROBLEMS[name] for name in SUITES[suite]]


def check_agents(agents: list[str]) -> None:
    """Raise ValueError for an unknown agent."""
    for agent in agents:
        if agent not in (*BASELINES, *LEARNERS):
            raise ValueError(unknown("agent", agent, (*BASELINES, *LEARNERS)))
