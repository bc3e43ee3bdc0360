"""What is around the agents on a GPU, which is pretended (`pretended`): task samplers, teachers, ensembles, play."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pretended import CPU, GPU, LOADS, PretendedGPU
from recorded import written
from test_device_agents import BANDIT, GRID, POINT, learned, maml, pearl, r2d2, rl2, varibad
from torch import Tensor

from metarl.agents import ADConfig, DAggerConfig, DPTConfig
from metarl.agents.ensemble.agent import Ensemble
from metarl.agents.random import RandomAgent
from metarl.core import rng
from metarl.core.agent import AgentConfig
from metarl.core.family import TaskFamily
from metarl.core.rollout import Agent, run_trial
from metarl.core.tree import tree_map
from metarl.envs.grids.wall_maze import WallMaze
from metarl.evaluation.evaluator import evaluate
from metarl.fast.capture import Captured
from metarl.interop.gym_env import GymEnv
from metarl.interop.player import Player
from metarl.learning.samplers.accel import ACCELOptions
from metarl.learning.samplers.paired import PAIREDOptions
from metarl.learning.samplers.plr import PLROptions
from metarl.learning.samplers.roml import RoMLOptions
from metarl.learning.samplers.sampler import SamplerOptions
from metarl.learning.samplers.sfl import SFLOptions
from metarl.studies.stress.study import stress
from metarl.training.checkpoint import Counters
from metarl.training.config.run_config import TrainConfig
from metarl.training.loop import Iteration

pytestmark = LOADS
MAZE = WallMaze()
MAZE.horizon = 3
FEW: dict[str, Any] = {"capacity": 8, "min_fill": 0.5, "replay": 0.9}
SAMPLERS: dict[str, tuple[SamplerOptions, TaskFamily]] = {
    "plr": (PLROptions(**FEW), BANDIT),
    "plr by regret": (
        PLROptions(robust=True, score="regret", replace=True, prioritization="proportional", **FEW),
        BANDIT,
    ),
    "plr by advantages": (PLROptions(score="positive_value_loss", **FEW), POINT),
    "accel": (ACCELOptions(**FEW), MAZE),
    "sfl": (SFLOptions(candidates=4, keep=3, every=1), MAZE),
    "roml": (RoMLOptions(batch=8), POINT),
    "paired": (PAIREDOptions(update_epochs=1), POINT),
}
SMALL: dict[str, Any] = {"meta_batch_size": 4, "hidden_size": 8, "num_minibatches": 2}
IMITATORS: dict[str, tuple[AgentConfig, TaskFamily]] = {
    "DPT": (DPTConfig(**SMALL), GRID),
    "DPT after random play": (DPTConfig(**SMALL, behaviour="uniform", memory="gru", norm_obs=True), BANDIT),
    "DAgger": (DAggerConfig(**SMALL, beta=0.5, teacher="optimal"), GRID),
    "DAgger told the task": (DAggerConfig(**SMALL, labels="sampled"), POINT),
    "DAgger told nothing": (DAggerConfig(**SMALL, teacher="thompson"), BANDIT),
    "AD": (ADConfig(**SMALL, context=8), GRID),
}


def kept(leaf: Tensor) -> Tensor:
    return leaf.detach().to(CPU, copy=True)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_task_sampler_on_the_device(name: str, gpu: PretendedGPU):
    """A run is that of a CPU, and goes on as it was when its state was loaded from one."""
    options, family = SAMPLERS[name]
    found = []
    for device in (CPU, GPU):
        config = TrainConfig(family, rl2(num_minibatches=1), task_sampler=options, eval_every=0)
        agent = config.agent.build(family, 0, device)
        iterate, done, metrics = Iteration(agent, config, device, options.build(agent, "train")), Counters(), {}
        for _ in range(3):
            states = [tree_map(kept, part.state_dict()) for part in (agent, iterate.sampler)]
            done, metrics, _, _ = iterate(done)
        again = Iteration(agent, config, device, options.build(agent, "train"))
        agent.load_state_dict(states[0])
        again.sampler.load_state_dict(states[1])
        _, repeated, _, _ = again(Counters(2))
        found += [{tag: value for tag, value in each.items() if "time/" not in tag} for each in (metrics, repeated)]
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=3e-2, abs=1e-2, nan_ok=True)


@pytest.mark.parametrize("name", IMITATORS)
def test_an_imitator_learns(name: str, tmp_path: Path, gpu: PretendedGPU):
    config, family = IMITATORS[name]
    if isinstance(config, ADConfig):
        folder = written(RandomAgent(family), family, tmp_path / "histories", tasks=4, episodes=3, shard_size=4)
        config = ADConfig(**vars(config) | {"histories": str(folder)})
    here, there = config.build(family, 0, CPU), config.build(family, 0, GPU)
    metrics = [agent.learn("train", 0.5).metrics for agent in (here, there)]  # type: ignore[attr-defined]
    assert metrics[1] == pytest.approx(metrics[0], rel=1e-2, abs=1e-3)
    there.learn("train", 0.75)  # type: ignore[attr-defined]
    play = Captured(lambda task, key: run_trial(there, family, task, key), GPU)
    for number in range(3):
        play(family.sample_tasks(rng.key(0, GPU), 3), rng.key(number, GPU))


def returns_of(agent: Agent, family: TaskFamily, greedy: bool | None = None) -> Any:
    return evaluate(agent, family, "test", 3, repeats=1, greedy=greedy, step_curve=False).returns


@pytest.mark.parametrize(
    ("weights", "mix", "config", "family"),
    [
        ("uniform", "step", maml(test_steps=1), BANDIT),
        ("likelihood", "step", rl2(), BANDIT),
        ("likelihood", "episode", varibad(), BANDIT),
        ("hedge", "episode", rl2(), BANDIT),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_an_ensemble_on_the_device(
    weights: str,
    mix: str,
    config: AgentConfig,
    family: TaskFamily,
    gpu: PretendedGPU,
):
    here, there = (
        Ensemble([learned(config, family, device, seed) for seed in range(2)], weights, mix) for device in (CPU, GPU)
    )
    np.testing.assert_allclose(returns_of(there, family), returns_of(here, family), atol=1e-3)
    play = Captured(lambda task, key: run_trial(there, family, task, key), GPU)
    for number in range(3):
        play(family.sample_tasks(rng.key(0, GPU), 3), rng.key(number, GPU))


@pytest.mark.parametrize(
    ("config", "family"),
    [(rl2(), POINT), (maml(), POINT), (pearl(), POINT), (r2d2(), GRID)],
    ids=["RL2", "MAML", "PEARL", "R2D2"],
)
def test_an_agent_plays_elsewhere(config: AgentConfig, family: TaskFamily, gpu: PretendedGPU):
    """In a Gymnasium environment, and greedily in an evaluation."""
    here, there = (learned(config, family, device) for device in (CPU, GPU))
    player = Player(there)
    player.play(GymEnv(family), episodes=1, seed=0)
    player.adapt()
    np.testing.assert_allclose(returns_of(there, family, True), returns_of(here, family, True), atol=1e-3)


def test_stress_on_the_device(gpu: PretendedGPU):
    """Rewards are measured before noise of their size is added."""
    assert stress(learned(rl2(), BANDIT, GPU), BANDIT, tasks=2, only=["reward noise"]).results
