"""The task families that ship with metarl, one folder per kind; importing this package registers them.

The module of a family is imported on first use, so that ``import metarl`` is fast.
"""

# ruff: noqa: F401  (the imports of families are for type checkers; `__getattr__` gives them)

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from metarl.core.registry import register

if TYPE_CHECKING:
    from metarl.core.family import TaskFamily
    from metarl.envs.bandits.bernoulli import BernoulliBandit
    from metarl.envs.bandits.dependent import DependentBandit
    from metarl.envs.bandits.gaussian import GaussianBandit
    from metarl.envs.bandits.informative import InformativeBandit
    from metarl.envs.bandits.restless import RestlessBandit
    from metarl.envs.cognitive.alchemy import Alchemy
    from metarl.envs.cognitive.harlow import Harlow
    from metarl.envs.cognitive.two_step import TwoStep
    from metarl.envs.control.acrobot import Acrobot
    from metarl.envs.control.cartpole import CartPole
    from metarl.envs.control.mountain_car import MountainCar, MountainCarContinuous
    from metarl.envs.control.pendulum import Pendulum
    from metarl.envs.grids.dark_room import DarkRoom, DarkRoomHard
    from metarl.envs.grids.grid_navi import GridNavi
    from metarl.envs.grids.key_to_door import DarkKeyToDoor
    from metarl.envs.grids.meta_maze import MetaMaze
    from metarl.envs.grids.room_navi import RoomNavi
    from metarl.envs.grids.tmaze import TMaze
    from metarl.envs.grids.wall_maze import WallMaze
    from metarl.envs.mdp import TabularMDP
    from metarl.envs.points.half_circle import SemiCircle, SparsePointRobot
    from metarl.envs.points.navigation import Navigation2D
    from metarl.envs.points.point_robot import PointRobot
    from metarl.envs.points.treasure_hunt import TreasureHunt
    from metarl.envs.points.windy import WindyPoint
    from metarl.envs.rulesets.family import Rulesets
    from metarl.envs.supervised.digits import FewShotDigits
    from metarl.envs.supervised.sinusoid import Sinusoid

    FAMILIES: tuple[type[TaskFamily], ...]
    """The classes of `PLAIN`."""

PLAIN = {
    "BernoulliBandit": "bandits.bernoulli",
    "GaussianBandit": "bandits.gaussian",
    "DependentBandit": "bandits.dependent",
    "InformativeBandit": "bandits.informative",
    "RestlessBandit": "bandits.restless",
    "TabularMDP": "mdp",
    "TwoStep": "cognitive.two_step",
    "Navigation2D": "points.navigation",
    "PointRobot": "points.point_robot",
    "SparsePointRobot": "points.half_circle",
    "SemiCircle": "points.half_circle",
    "WindyPoint": "points.windy",
    "TreasureHunt": "points.treasure_hunt",
    "GridNavi": "grids.grid_navi",
    "DarkRoom": "grids.dark_room",
    "DarkRoomHard": "grids.dark_room",
    "DarkKeyToDoor": "grids.key_to_door",
    "TMaze": "grids.tmaze",
    "MetaMaze": "grids.meta_maze",
    "RoomNavi": "grids.room_navi",
    "WallMaze": "grids.wall_maze",
    "Harlow": "cognitive.harlow",
    "Alchemy": "cognitive.alchemy",
    "CartPole": "control.cartpole",
    "Pendulum": "control.pendulum",
    "Acrobot": "control.acrobot",
    "MountainCar": "control.mountain_car",
    "MountainCarContinuous": "control.mountain_car",
    "Rulesets": "rulesets.family",
    "Sinusoid": "supervised.sinusoid",
    "FewShotDigits": "supervised.digits",
}
"""Class → module in this package, for families that need no simulator."""
SIMULATED = {
    "mujoco.half_cheetah": (
        "HalfCheetahVel",
        "HalfCheetahVelMAML",
        "HalfCheetahDir",
        "HalfCheetahDirVel",
        "HalfCheetahDirSparse",
    ),
    "mujoco.ant": ("AntDir", "AntDir2D", "AntVel", "AntGoal", "AntGoalSparse"),
    "mujoco.ant_maml": ("AntVelMAML", "AntDirMAML", "AntPos"),
    "mujoco.walker": ("Walker2dDir", "Walker2dVel"),
    "mujoco.humanoid": ("HumanoidDir",),
    "mujoco.random_bodies": ("Walker2dRandParams", "HopperRandParams"),
}
"""Module → classes of the families that need MuJoCo (``pip install 'metarl[mujoco]'``)."""
META_WORLD = ("ML1", "ML10", "ML45", "MT10")
"""The benchmarks of Meta-World (``pip install 'metarl[metaworld]'`` in a separate environment)."""

ADAPTED = {
    "Gym": "adapter.gym_family:GymFamily",
    **{name: f"meta_world.benchmarks:{name}" for name in META_WORLD},
}
"""Families around simulators of other packages: name in the id → module and class."""

__all__ = [*PLAIN]

for _name, _module in PLAIN.items():
    register(f"metarl/{_name}-v0", f"metarl.envs.{_module}:{_name}")
for _module, _names in SIMULATED.items():
    for _name in _names:
        register(f"metarl/{_name}-v0", f"metarl.envs.{_module}:{_name}")
for _name, _place in ADAPTED.items():
    register(f"metarl/{_name}-v0", f"metarl.envs.{_place}")


def __getattr__(name: str) -> Any:
    """Import the class of a family on first use."""
    if name in PLAIN:
        return getattr(importlib.import_module(f"metarl.envs.{PLAIN[name]}"), name)
    if name == "FAMILIES":
        return tuple(__getattr__(each) for each in PLAIN)
    raise AttributeError(f"module 'metarl.envs' has no attribute {name!r}")
