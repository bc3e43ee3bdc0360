"""Ready-made agents by name, with which learned ones are compared: ``metarl.compare … --baselines random oracle``.

`random` acts at random, `oracle` is told the task, and `ppo_scratch` is stable-baselines3's PPO, which learns each task
from nothing; all others are told nothing and learn by a written-down rule.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from metarl.agents import classical, control, index_policies, posterior_sampling, scripted
from metarl.agents.baselines import RandomAgent
from metarl.agents.two_step import TwoStepBayes, TwoStepWinStay
from metarl.envs.alchemy import Alchemy
from metarl.envs.bandits import BernoulliBandit
from metarl.envs.classic_control import CartPole
from metarl.envs.grids import DarkRoom, GridNavi
from metarl.envs.half_circle import SemiCircle, SparsePointRobot
from metarl.envs.harlow import Harlow
from metarl.envs.mdp import TabularMDP
from metarl.envs.meta_maze import MetaMaze
from metarl.envs.more_bandits import DependentBandit, GaussianBandit, InformativeBandit
from metarl.envs.mountain_car import MountainCar, MountainCarContinuous
from metarl.envs.navigation import Navigation2D
from metarl.envs.points import PointRobot, WindyPoint
from metarl.envs.restless_bandit import RestlessBandit
from metarl.envs.rooms import DarkKeyToDoor, DarkRoomHard
from metarl.envs.swing_up import Acrobot, Pendulum
from metarl.envs.tmaze import TMaze
from metarl.envs.two_step import TwoStep
from metarl.errors import unknown
from metarl.family import TaskFamily
from metarl.rollout import Agent

Make = Callable[..., Agent]
"""(family, device) → agent; `...` because each takes its own family."""


def _plain(agent: Callable[..., Agent]) -> Make:
    """Of an agent that needs to know nothing of the family's options."""
    return lambda family, device: agent(device=device)


def _arms(agent: Callable[..., Agent]) -> dict[type, Make]:
    """Of an agent for Bernoulli bandits of any number of arms."""
    return {
        BernoulliBandit: lambda family, device: agent(family.num_arms, device=device),
        DependentBandit: lambda family, device: agent(2, device=device),
        RestlessBandit: lambda family, device: agent(2, device=device),
    }


def _searched(things: int) -> Make:
    return lambda family, device: scripted.RoomSearch(family.size, things, device)


def _ppo_scratch(family: TaskFamily, device: torch.device | str) -> Agent:
    """On the CPU, wherever the others are."""
    from metarl.agents.sb3 import scratch  # stable-baselines3 is slow to import

    return scratch(family)


BASELINES: dict[str, dict[type, Make]] = {
    "random": {TaskFamily: RandomAgent},
    "ppo_scratch": {TaskFamily: _ppo_scratch},
    "oracle": {
        TabularMDP: lambda family, device: classical.TabularMDPOracle(family.horizon, device),
        Navigation2D: _plain(classical.Navigation2DOracle),
        PointRobot: _plain(classical.Navigation2DOracle),
        SparsePointRobot: _plain(classical.Navigation2DOracle),
        SemiCircle: _plain(classical.Navigation2DOracle),
        WindyPoint: _plain(scripted.WindyPointOracle),
        GridNavi: _plain(scripted.GoalOracle),
        DarkRoom: _plain(scripted.GoalOracle),
        DarkRoomHard: _plain(scripted.RoomOracle),
        DarkKeyToDoor: _plain(scripted.RoomOracle),
        TMaze: _plain(scripted.TMazeOracle),
        MetaMaze: _plain(scripted.MetaMazeOracle),
        CartPole: _plain(control.CartPoleRegulator),
        Pendulum: _plain(control.PendulumSwingUp),
        Alchemy: _plain(control.AlchemyPlanner),
    },
    "bayes_optimal": {
        BernoulliBandit: lambda f, device: classical.BayesOptimalBandit(f.num_arms, f.episodes_per_trial, device),
        DependentBandit: lambda f, device: index_policies.DependentBanditBayes(
            f.structure, f.episodes_per_trial, device
        ),
        InformativeBandit: _plain(index_policies.InformativeBanditScript),
        TwoStep: lambda family, device: TwoStepBayes(device=device),
        GridNavi: _plain(classical.GridNaviSweep),
        TMaze: _plain(scripted.TMazeRemember),
        Harlow: lambda family, device: control.WinStayLoseShift(family.num_features, device),
    },
    "gittins": {
        BernoulliBandit: lambda f, device: index_policies.GittinsBandit(f.num_arms, f.episodes_per_trial, device)
    },
    "thompson": {
        **_arms(classical.ThompsonBandit),
        GaussianBandit: lambda f, device: index_policies.GaussianThompsonBandit(f.num_arms, f.std, device),
    },
    "ucb1": _arms(classical.UCB1Bandit),
    "greedy": _arms(classical.PosteriorMeanBandit),
    "epsilon_greedy": _arms(index_policies.EpsilonGreedyBandit),
    "psrl": {TabularMDP: _plain(posterior_sampling.PSRL)},
    "opsrl": {TabularMDP: _plain(posterior_sampling.OPSRL)},
    "search": {
        SparsePointRobot: _plain(scripted.ArcSearch),
        SemiCircle: _plain(scripted.ArcSearch),
        DarkRoom: _plain(classical.DarkRoomSweep),
        DarkRoomHard: _searched(1),
        DarkKeyToDoor: _searched(2),
        MetaMaze: _plain(scripted.MetaMazeSearch),
    },
    "win_stay": {TwoStep: lambda family, device: TwoStepWinStay(device=device)},
    "robust": {
        CartPole: lambda family, device: control.CartPoleRegulator(False, device),
        Pendulum: lambda family, device: control.PendulumSwingUp(False, device),
        Acrobot: control.PushAlong,
        MountainCar: control.PushAlong,
        MountainCarContinuous: control.PushAlong,
    },
}
"""Name → the families it is for → how it is made. `robust`: a controller made for the nominal parameters."""


def baselines_for(family: TaskFamily) -> list[str]:
    """The names that `baseline` takes for this family."""
    return [name for name, makers in BASELINES.items() if _maker(makers, family) is not None]


def baseline(name: str, family: TaskFamily, device: torch.device | str = "cpu") -> Agent:
    """The ready-made agent of this name for `family`. Raises ValueError that names the nearest if there is none."""
    make = _maker(BASELINES.get(name, {}), family)
    if make is None:
        where, see = f" for {type(family).__name__}", "metarl.agents.catalogue.baselines_for(family)"
        raise ValueError(unknown("baseline", name, baselines_for(family), where, see))
    return make(family, device)


def _maker(makers: dict[type, Make], family: TaskFamily) -> Make | None:
    return makers.get(type(family), makers.get(TaskFamily))
