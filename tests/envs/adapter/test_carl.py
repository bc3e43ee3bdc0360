"""The files of CARL's contexts: five classic environments whose numbers are a task."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
import yaml

import metarl
from metarl.core import rng
from metarl.core.family import TaskFamily
from metarl.core.tree import named_leaves
from metarl.testing import check_family
from metarl.train import main
from metarl.training.config import parsing as config

FOLDER = Path(__file__).parents[3] / "examples" / "families"
FILES = sorted(FOLDER.glob("carl_*.yaml"))
PUBLISHED = {
    "gravity": (9.8, 0.1, math.inf),
    "masscart": (1.0, 0.1, 10.0),
    "masspole": (0.1, 0.01, 1.0),
    "length": (0.5, 0.05, 5.0),
    "force_mag": (10.0, 1.0, 100.0),
    "tau": (0.02, 0.002, 0.2),
}
"""CartPole's default and bounds of each number, of CARL 1.1.0."""


def options(stem: str) -> dict[str, Any]:
    """Return the options of the family in a file."""
    family = yaml.safe_load((FOLDER / f"{stem}.yaml").read_text(encoding="utf-8"))["family"]
    return {name: value for name, value in family.items() if name != "name"}


def family(stem: str, **more: Any) -> Any:
    return metarl.make("metarl/Gym-v0", **options(stem) | more)


def began(made: Any, **numbers: float) -> Any:
    """Begin an episode of the task with these numbers, the others at random; return the unwrapped environment."""
    task = made.sample_tasks(rng.key(0), 1)
    task = task._replace(**{name: torch.tensor([value]) for name, value in numbers.items()})
    made.state = None  # gives the environment of the episode before back
    made.state = made.reset(task, rng.key(1)[None])
    return made._pool._benches[0].simulators[0].env.unwrapped


def test_the_five_environments_are_there():
    assert {options(path.stem)["env"] for path in FILES} == {
        "CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0",
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_contract_holds(path: Path):
    parsed = config.parse(["--config", str(path)]).config
    assert isinstance(parsed.family, TaskFamily) and parsed.family.splits[:3] == ("train", "valid", "test")
    check_family(family(path.stem, horizon=20))


@pytest.mark.parametrize("split", ["train", "ood"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_task_is_the_environment_with_these_attributes(path: Path, split: str):
    made, rows = family(path.stem), 4
    task, keys = made.sample_tasks(rng.key(3), rows, split), rng.fold(rng.key(4), torch.arange(rows))
    state, seeds = made.reset(task, keys), (rng.fold(keys, 0) & 0x7FFFFFFF).tolist()
    envs = [gymnasium.make(made.env).unwrapped for _ in range(rows)]
    for row, env in enumerate(envs):
        for name, values in named_leaves(task).items():
            attribute = made.parameters[name]["where"].removeprefix("attribute:")
            setattr(env, attribute, float(str(values[row].numpy())))
        if made.env == "CartPole-v1":
            env.total_mass, env.polemass_length = env.masscart + env.masspole, env.masspole * env.length
        assert np.array_equal(np.float32(env.reset(seed=seeds[row])[0]), state.obs[row].numpy())
    draws = np.random.default_rng(0)
    for _ in range(5):
        discrete = isinstance(made.action_space, gymnasium.spaces.Discrete)
        actions = draws.integers(made.action_space.n, size=rows) if discrete else draws.uniform(-1, 1, (rows, 1))
        actions = actions if discrete else np.float32(actions)
        state, reward, terminated = made.step(task, state, torch.from_numpy(actions), keys)
        for row, env in enumerate(envs):
            if env is None:
                continue  # its episode is over
            obs, expected, ended, *_ = env.step(int(actions[row]) if discrete else actions[row])
            assert np.array_equal(np.float32(obs), state.obs[row].numpy())
            assert (reward[row], terminated[row]) == (np.float32(expected), ended)
            if ended:
                envs[row] = None


def test_cartpoles_numbers_are_the_published_ones():
    made = family("carl_cartpole")
    assert made.parameters.keys() == PUBLISHED.keys()
    env = gymnasium.make("CartPole-v1").unwrapped
    for name, (default, low, high) in PUBLISHED.items():
        assert getattr(env, name) == default
        bounds = made.parameters[name]["carl"]["log_uniform"]
        assert bounds == [low, high] if name != "gravity" else bounds[0] >= low
        least, most = made.parameters[name]["train"]["log_uniform"]
        assert math.sqrt(least * most) == pytest.approx(default, rel=0.01), "the default is the middle"


def test_a_heavier_cart_is_heavier():
    """CARL 1.1.0 leaves the total mass at 1.1, so that its carts are heavy in name only."""
    env = began(family("carl_cartpole"), masscart=5.0, masspole=0.1, length=2.0)
    assert env.total_mass == pytest.approx(5.1) and env.polemass_length == pytest.approx(0.2)


def test_the_next_task_starts_from_the_environments_own_numbers():
    made = family("carl_cartpole")
    for mass in (5.0, 2.0):
        assert began(made, masscart=mass, masspole=0.1).total_mass == pytest.approx(mass + 0.1)


def test_every_number_stays_between_carls_bounds():
    made = family("carl_cartpole")
    for split in made.splits:
        task = made.sample_tasks(rng.key(5), 500, split)
        for name, (_, low, high) in PUBLISHED.items():
            values = getattr(task, name)
            assert float(values.min()) >= low * 0.999 and float(values.max()) <= high * 1.001


def test_the_largest_torque_reaches_the_pendulum_and_its_fixed_bounds_are_said():
    """The environment clips to its task's torque; the action space was made with the constructor's, and stays."""
    place = {"where": "attribute:max_torque", "train": {"uniform": [0.5, 2.0]}}
    parameters = options("carl_pendulum")["parameters"] | {"max_torque": place}
    with pytest.warns(UserWarning, match="PendulumEnv computes action_space"):
        made = family("carl_pendulum", parameters=parameters)
    env = began(made, max_torque=1.0)
    task = made.sample_tasks(rng.key(0), 1)
    made.step(task, made.state, torch.tensor([[2.0]]), rng.key(1)[None])
    assert env.max_torque == 1.0 and env.last_u == 1.0 and made.action_space.high == 2.0


def test_a_file_trains(tmp_path: Path):
    small = ["--agent", "RL2", "--agent.meta_batch_size=4", "--agent.hidden_size=8", "--total_iterations=1"]
    small += ["--family.horizon=10", "--eval_every=0", "--final_eval_tasks=4", f"--run_dir={tmp_path / 'run'}"]
    assert main(["--config", str(FOLDER / "carl_cartpole.yaml"), *small]) == 0
    assert (tmp_path / "run" / "evaluation" / "ood.json").exists()
