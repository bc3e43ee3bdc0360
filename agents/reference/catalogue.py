"""Ready-made baselines by name, to compare learned agents with: ``metarl compare … --baselines random oracle``.

`random` acts at random, `oracle` knows the task, and `ppo_scratch` is stable-baselines3's PPO, which learns each task
from scratch. The others do not know the task and learn by a fixed rule. `robust` is a controller designed for the
nominal parameters. Importing this module registers all of them (`metarl.agents.family_extras`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from metarl.agents.family_extras import MakeAgent, baseline, baselines_for, register_baseline
from metarl.agents.random import RandomAgent
from metarl.agents.reference import (
    bandit_planners,
    bandits,
    cognitive,
    control,
    grids,
    mazes,
    mdps,
    other_bandits,
    points,
    q_learning,
)
from metarl.agents.reference.robots.meta_world import MetaWorldScript
from metarl.agents.reference.rulesets import oracle as rulesets
from metarl.agents.reference.supervised import digits, waves
from metarl.core.family import TaskFamily
from metarl.core.rollout import Agent
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
from metarl.envs.grids.grid import MOVES, cell_number
from metarl.envs.grids.grid_navi import GridNavi
from metarl.envs.grids.key_to_door import DarkKeyToDoor
from metarl.envs.grids.meta_maze import MetaMaze
from metarl.envs.grids.room_navi import RoomNavi
from metarl.envs.grids.tmaze import TMaze
from metarl.envs.grids.wall_maze import WallMaze
from metarl.envs.mdp import TabularMDP
from metarl.envs.meta_world.benchmarks import ML1, ML10, ML45, MT10
from metarl.envs.points.half_circle import SemiCircle, SparsePointRobot
from metarl.envs.points.navigation import Navigation2D
from metarl.envs.points.point_robot import PointRobot
from metarl.envs.points.treasure_hunt import TreasureHunt
from metarl.envs.points.windy import WindyPoint
from metarl.envs.rulesets.family import Rulesets
from metarl.envs.supervised.digits import FewShotDigits
from metarl.envs.supervised.sinusoid import Sinusoid

__all__ = ["baseline", "baselines_for"]


def _plain(agent: Callable[..., Agent]) -> MakeAgent:
    """Make an agent that does not depend on the family's options."""
    return lambda family, device: agent(device=device)


def _ppo_scratch(family: TaskFamily, device: torch.device | str) -> Agent:
    """Make stable-baselines3's PPO, which always runs on the CPU."""
    from metarl.agents.sb3.agent import scratch  # stable-baselines3 is slow to import

    return scratch(family)


def _searched(things: int) -> MakeAgent:
    return lambda family, device: grids.RoomSearch(family.size, things, device)


register_baseline(TaskFamily, "random", RandomAgent)
register_baseline(TaskFamily, "ppo_scratch", _ppo_scratch)


# ---- agents that know the task --------------------------------------------------------------------------------------

register_baseline(TabularMDP, "oracle", lambda family, device: mdps.TabularMDPOracle(family.horizon, device))
for _points in (Navigation2D, PointRobot, SparsePointRobot, SemiCircle):
    register_baseline(_points, "oracle", _plain(points.Navigation2DOracle))
register_baseline(WindyPoint, "oracle", _plain(points.WindyPointOracle))
for _grid in (GridNavi, DarkRoom):
    register_baseline(_grid, "oracle", _plain(grids.GoalOracle))
for _room in (DarkRoomHard, DarkKeyToDoor):
    register_baseline(_room, "oracle", _plain(grids.RoomOracle))
register_baseline(TMaze, "oracle", _plain(mazes.TMazeOracle))
register_baseline(MetaMaze, "oracle", _plain(mazes.MetaMazeOracle))
register_baseline(RoomNavi, "oracle", lambda family, device: mazes.RoomNaviOracle(family.horizon, device))
register_baseline(WallMaze, "oracle", _plain(mazes.WallMazeOracle))
register_baseline(TreasureHunt, "oracle", _plain(points.TreasureHuntOracle))
register_baseline(CartPole, "oracle", _plain(control.CartPoleRegulator))
register_baseline(Pendulum, "oracle", _plain(control.PendulumSwingUp))
register_baseline(Alchemy, "oracle", _plain(cognitive.AlchemyPlanner))
for _benchmark in (ML1, ML10, ML45, MT10):
    register_baseline(_benchmark, "oracle", MetaWorldScript)
register_baseline(Rulesets, "oracle", rulesets.RulesetOracle)
register_baseline(Sinusoid, "oracle", _plain(waves.WaveOracle))
register_baseline(FewShotDigits, "oracle", _plain(digits.DigitsOracle))


# ---- optimal agents that do not know the task ------------------------------------------------------------------------


def _bayes_bandit(family: BernoulliBandit, device: torch.device | str) -> Agent:
    return bandit_planners.BayesOptimalBandit(family.num_arms, family.episodes_per_trial, device)


def _bayes_dependent(family: DependentBandit, device: torch.device | str) -> Agent:
    return other_bandits.DependentBanditBayes(family.structure, family.episodes_per_trial, device)


register_baseline(BernoulliBandit, "bayes_optimal", _bayes_bandit)
register_baseline(DependentBandit, "bayes_optimal", _bayes_dependent)
register_baseline(InformativeBandit, "bayes_optimal", _plain(other_bandits.InformativeBanditScript))
register_baseline(TwoStep, "bayes_optimal", _plain(cognitive.TwoStepBayes))
register_baseline(GridNavi, "bayes_optimal", _plain(grids.GridNaviSweep))
register_baseline(TMaze, "bayes_optimal", _plain(mazes.TMazeRemember))
register_baseline(
    Harlow, "bayes_optimal", lambda family, device: cognitive.WinStayLoseShift(family.num_features, device)
)


# ---- rules that learn ------------------------------------------------------------------------------------------------


def _gittins(family: BernoulliBandit, device: torch.device | str) -> Agent:
    return bandit_planners.GittinsBandit(family.num_arms, family.episodes_per_trial, device)


def _gaussian_thompson(family: GaussianBandit, device: torch.device | str) -> Agent:
    return other_bandits.GaussianThompsonBandit(family.num_arms, family.std, device)


def _q_learning(family: DarkRoom, device: torch.device | str) -> Agent:
    def state_of(obs: Tensor) -> Tensor:
        return cell_number(obs.to(torch.int64), family.size)

    return q_learning.QLearning(family.size**2, len(MOVES), state_of, device=device)


def _register_for_arms(name: str, agent: Callable[..., Agent]) -> None:
    """Register an agent for Bernoulli bandits of any number of arms."""
    register_baseline(BernoulliBandit, name, lambda family, device: agent(family.num_arms, device=device))
    register_baseline(DependentBandit, name, lambda family, device: agent(2, device=device))
    register_baseline(RestlessBandit, name, lambda family, device: agent(2, device=device))


register_baseline(BernoulliBandit, "gittins", _gittins)
_register_for_arms("thompson", bandits.ThompsonBandit)
register_baseline(GaussianBandit, "thompson", _gaussian_thompson)
_register_for_arms("ucb1", bandits.UCB1Bandit)
_register_for_arms("greedy", bandits.PosteriorMeanBandit)
_register_for_arms("epsilon_greedy", bandits.EpsilonGreedyBandit)
register_baseline(TabularMDP, "psrl", _plain(mdps.PSRL))
register_baseline(TabularMDP, "opsrl", _plain(mdps.OPSRL))
for _points in (SparsePointRobot, SemiCircle):
    register_baseline(_points, "search", _plain(points.ArcSearch))
for _grid in (GridNavi, DarkRoom):
    register_baseline(
        _grid, "posterior_sampling", lambda family, device: grids.PosteriorSampling(family, device=device)
    )
    register_baseline(
        _grid, "posterior_sampling_by_episode", lambda f, device: grids.PosteriorSampling(f, "belief", device)
    )
    register_baseline(_grid, "psrl", lambda f, device: grids.PosteriorSampling(f, "task", device))
register_baseline(DarkRoom, "search", _plain(grids.DarkRoomSweep))
register_baseline(DarkRoom, "q_learning", _q_learning)
register_baseline(DarkRoomHard, "search", _searched(1))
register_baseline(DarkKeyToDoor, "search", _searched(2))
register_baseline(MetaMaze, "search", _plain(mazes.MetaMazeSearch))
register_baseline(RoomNavi, "search", _plain(mazes.RoomNaviSearch))
register_baseline(TreasureHunt, "search", _plain(points.TreasureHuntClimb))
register_baseline(TwoStep, "win_stay", _plain(cognitive.TwoStepWinStay))
register_baseline(Sinusoid, "least_squares", waves.LeastSquares)
register_baseline(
    FewShotDigits, "nearest_neighbour", lambda family, device: digits.NearestNeighbour(family.num_classes, device)
)


# ---- controllers for the nominal parameters --------------------------------------------------------------------------

register_baseline(CartPole, "robust", lambda family, device: control.CartPoleRegulator(False, device))
register_baseline(Pendulum, "robust", lambda family, device: control.PendulumSwingUp(False, device))
for _control in (Acrobot, MountainCar, MountainCarContinuous):
    register_baseline(_control, "robust", control.PushAlong)
