"""Any Gymnasium environment as a family: where the task goes, and what the rows do."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import signal
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import metarl
from metarl.agents.random import RandomAgent
from metarl.core import rng
from metarl.core.batch_env import make_env
from metarl.core.checks import checked_task
from metarl.core.errors import WrongResult
from metarl.core.rollout import run_trial
from metarl.core.tree import take
from metarl.envs.adapter.gym_family import GymFamily
from metarl.testing import check_family, quick_check
from tests.envs.adapter import environments

TARGET = {"target": {"where": "constructor", "train": {"choice": [0, 1]}, "test": {"choice": [2]}}}


def keys(rows: int, seed: int = 1) -> torch.Tensor:
    return rng.fold(rng.key(seed), torch.arange(rows))


def made(family: GymFamily, row: int = 0) -> gymnasium.Env:
    """The unwrapped environment of a slot."""
    return family._pool._benches[0].simulators[row].env.unwrapped


def start(family: GymFamily, rows: int = 2, split: str = "train"):
    task = family.sample_tasks(rng.key(0), rows, split)
    return task, family.reset(task, keys(rows))


# ---- the contract --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "family",
    [
        GymFamily(),
        GymFamily("Pendulum-v1", {"g": {"where": "constructor", "train": {"uniform": [5, 15]}}}, horizon=30),
        GymFamily("tests/Target-v0", TARGET, success="is_success"),
    ],
    ids=lambda family: family.env,
)
def test_the_contract_holds(family: GymFamily):
    check_family(family)


def test_noise_that_is_not_seeded_is_said_but_does_not_prevent_training():
    family = GymFamily("tests/Unseeded-v0", TARGET)
    (said,) = quick_check(family)
    assert said.startswith("GymFamily gives different episodes for the same keys")
    with pytest.raises(AssertionError, match="different episodes"):
        check_family(family)


def test_an_agent_learns_the_target():
    """Told nothing, RL² finds which of two actions pays in two steps: it cannot without a memory of what paid."""
    parameters = {"target": {"where": "attribute:target", "train": {"choice": [0, 2]}, "test": 1}}
    family = {"name": "metarl/Gym-v0", "env": "tests/Target-v0", "parameters": parameters, "episodes_per_trial": 1}
    agent = {"name": "RL2", "meta_batch_size": 32, "hidden_size": 16, "lr": 0.01}
    run = metarl.run(
        None, family=family, agent=agent, total_iterations=40, eval_every=0, final_eval_tasks=40, seed=1, quiet=True
    )
    assert run.curves["train"].mean()[0] > 4.0  # of 5; without memory at most 2.5


def test_valid_has_the_values_that_it_names():
    layout = {"where": "seed", "train": {"integers": [0, 9]}, "valid": {"integers": [10, 12]}}
    family = GymFamily("tests/Target-v0", {"layout": layout | {"test": {"integers": [20, 29]}}})
    assert family.tasks_of("valid").layout.tolist() == [10, 11, 12] and family.num_tasks("train") == 10
    plain = GymFamily("tests/Target-v0", {"layout": {k: v for k, v in layout.items() if k != "valid"} | {"test": 20}})
    assert set(plain.tasks_of("valid").layout.tolist()) < set(range(10)), "else it is a part of train"
    with pytest.raises(ValueError, match="`valid` tasks must not be among"):
        GymFamily("tests/Target-v0", {"layout": layout | {"test": {"integers": [12, 29]}}})


# ---- where the task goes -------------------------------------------------------------------------------------------


def test_the_constructor_gets_the_task():
    family = GymFamily("tests/Target-v0", TARGET)
    task = type(family.sample_tasks(rng.key(0), 1))(torch.tensor([1, 0, 1]))
    family.reset(task, keys(3))
    assert [made(family, row).target for row in range(3)] == [1, 0, 1]
    family.reset(task, keys(3))
    assert family.simulators == 3, "idle environments of the same arguments are used again"


def test_what_the_constructor_derives_follows_the_attribute():
    parameters = {"masscart": {"where": "attribute:unwrapped.masscart", "train": {"uniform": [1, 5]}}}
    family = GymFamily("CartPole-v1", parameters)
    task = type(family.sample_tasks(rng.key(0), 1))(torch.tensor([5.0]))
    family.reset(task, keys(1))
    env = made(family)
    assert (env.masscart, env.total_mass) == (5.0, 5.0 + env.masspole)
    stale = gymnasium.make("CartPole-v1").unwrapped
    stale.masscart = 5.0
    assert stale.total_mass == pytest.approx(1.1), "this is what goes wrong without"


def test_a_constant_that_cannot_be_derived_again_is_named():
    parameters = {"max_torque": {"where": "attribute:max_torque", "train": {"uniform": [1, 3]}}}
    with pytest.warns(UserWarning, match="PendulumEnv computes action_space from a number of the task"):
        GymFamily("Pendulum-v1", parameters)


def test_constants_follow_or_are_named_however_they_are_derived():
    """Under conditions, by local variables, in several steps: an attribute keeps a former value only with a warning."""
    parameters = {"mass": {"where": "attribute:mass", "train": {"uniform": [1, 3]}}}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        family = GymFamily("tests/Derived-v0", parameters)
    named = {str(each.message).split(" computes ")[1].split(" ")[0] for each in caught}
    assert named == {"branch", "half", "more", "scaled", "one", "other"}
    family.reset(type(family.sample_tasks(rng.key(0), 1))(torch.tensor([2.0])), keys(1))
    env, own = made(family), gymnasium.make("tests/Derived-v0").unwrapped
    assert (env.twice, env.inner, env.outer) == (4.0, 5.0, 6.0), "in the order of source"
    assert all(getattr(env, name) == getattr(own, name) for name in named), "these keep what the constructor gave them"


def test_a_factor_multiplies_the_environments_own_number():
    family = GymFamily(
        "CartPole-v1", {"gravity": {"where": "attribute:gravity", "factor": True, "train": {"uniform": [1, 2]}}}
    )
    task = type(family.sample_tasks(rng.key(0), 1))(torch.tensor([2.0]))
    for _ in range(2):  # of its own, not of what it was made to be before
        state = family.reset(task, keys(1))
        assert made(family).gravity == pytest.approx(2 * 9.8)
        del state


def test_options_and_seeds_go_to_reset():
    parameters = {
        "place": {"where": "option:low", "train": {"uniform": [0, 1]}},
        "layout": {"where": "seed", "train": {"integers": [7, 7]}, "test": {"integers": [8, 8]}},
    }
    family = GymFamily("tests/Target-v0", parameters)
    task, state = start(family, 1)
    env = made(family)
    assert env.seed == 7 and env.options == {"low": pytest.approx(float(task.place))}
    assert torch.equal(state.obs, family.reset(task, keys(1, seed=9)).obs), "the layout's seed is the episode's, too"


def test_a_reset_that_takes_the_task_back_is_an_error():
    family = GymFamily("tests/Forgetful-v0", {"target": {"where": "attribute:target", "train": 1, "test": 2}})
    with pytest.raises(WrongResult, match=r"row 0 of 2.*Forgetful.reset sets target itself"):
        start(family)


def test_a_mujoco_model_is_changed_and_stays_physical():
    pytest.importorskip("mujoco")
    parameters = {
        "mass": {"where": "model:body_mass[torso]", "factor": True, "train": {"uniform": [1, 2]}},
        "gravity": {"where": "model:opt.gravity[2]", "train": {"uniform": [-12, -8]}},
    }
    family = GymFamily("Hopper-v5", parameters)
    model = gymnasium.make("Hopper-v5").unwrapped.model
    task = type(family.sample_tasks(rng.key(0), 1))(torch.tensor([2.0]), torch.tensor([-9.0]))
    for _ in range(2):
        state = family.reset(task, keys(1))
        changed, torso = made(family).model, model.body("torso").id
        assert changed.opt.gravity[2] == -9.0
        assert changed.body_mass[torso] == pytest.approx(2 * model.body_mass[torso])
        assert changed.body_inertia[torso] == pytest.approx(2 * model.body_inertia[torso])
        # What MuJoCo derives from masses: the mass of the whole robot.
        assert changed.body_subtreemass[0] == pytest.approx(model.body_subtreemass[0] + model.body_mass[torso])
        del state


def test_numbers_with_overlapping_places_are_put_there_one_after_another():
    """All masses are doubled, then that of the foot is tripled, starting from the robot's own in every episode."""
    pytest.importorskip("mujoco")
    parameters = {
        "mass": {"where": "model:body_mass", "factor": True, "train": {"uniform": [1, 3]}},
        "foot": {"where": "model:body_mass[foot]", "factor": True, "train": {"uniform": [1, 3]}},
    }
    family = GymFamily("Hopper-v5", parameters)
    model = gymnasium.make("Hopper-v5").unwrapped.model
    task = type(family.sample_tasks(rng.key(0), 1))(torch.tensor([2.0]), torch.tensor([3.0]))
    for _ in range(2):
        state = family.reset(task, keys(1))
        expected = 2 * model.body_mass
        expected[model.body("foot").id] *= 3
        np.testing.assert_allclose(made(family).model.body_mass, expected)
        del state


def test_an_impossible_body_is_refused():
    pytest.importorskip("mujoco")
    family = GymFamily("Hopper-v5", {"mass": {"where": "model:body_mass", "train": {"uniform": [-2, -1]}}})
    with pytest.raises(WrongResult, match="a mass or moments of inertia that no body has"):
        start(family)


# ---- steps ---------------------------------------------------------------------------------------------------------


def test_rows_step_as_the_environment():
    family = GymFamily("Pendulum-v1", {"g": {"where": "constructor", "train": {"uniform": [5, 15]}}})
    task, state = start(family, 3)
    actions = torch.tensor([[1.0], [-9.0], [0.5]])
    after, reward, terminated = family.step(task, state, actions, keys(3))
    seeds = (rng.fold(keys(3), 0) & 0x7FFFFFFF).tolist()
    for row in range(3):
        env = gymnasium.make("Pendulum-v1", g=float(str(task.g[row].numpy())))
        first, _ = env.reset(seed=seeds[row])
        obs, expected, *_ = env.step(actions[row].clamp(-2.0, 2.0).numpy())
        assert np.array_equal(first, state.obs[row].numpy()) and np.array_equal(obs, after.obs[row].numpy())
        assert reward[row] == np.float32(expected)
    assert not terminated.any()


def test_a_state_can_be_stepped_once():
    family = GymFamily("tests/Target-v0", TARGET)
    task, state = start(family)
    family.step(task, state, torch.zeros(2, dtype=torch.int64), keys(2))
    with pytest.raises(WrongResult, match="A state of GymFamily can be stepped only once"):
        family.step(task, state, torch.zeros(2, dtype=torch.int64), keys(2))


def test_a_terminated_row_stays_where_it_is():
    family = GymFamily()
    task, state = start(family, 2)
    for _ in range(200):
        action = torch.tensor([1, 0])
        before, (state, reward, terminated) = state, family.step(task, state, action, keys(2))
    assert terminated.all() and not reward.any() and torch.equal(before.obs, state.obs)


def test_rows_that_have_finished_are_not_played():
    """One row falls at once, the other lasts: the environment of the first makes no more steps."""
    family = GymFamily(episodes_per_trial=1)
    env = make_env(family, family.sample_tasks(rng.key(0), 2), rng.key(1))
    env.reset()
    while bool(env.alive.all()):
        env.step(torch.tensor([1, int(env._step) % 2]))
    steps = made(family, 0).steps_beyond_terminated
    for _ in range(3):
        outcome, step = env.step(torch.tensor([1, 0]))
    assert made(family, 0).steps_beyond_terminated == steps and outcome.reward[0] == 0.0
    assert torch.equal(step.obs[0], outcome.final_obs[0])


def test_success_is_the_entry_of_info():
    family = GymFamily("tests/Target-v0", TARGET, success="is_success")
    task, state = start(family, 4)
    state, reward, _ = family.step(task, state, torch.zeros(4, dtype=torch.int64), keys(4))
    assert torch.equal(family.success(task, state), reward == 1.0) and len(set(reward.tolist())) == 2


def test_a_limit_before_the_horizon_is_named():
    family = GymFamily("tests/Impatient-v0", TARGET)
    with pytest.raises(WrongResult, match=r"truncated an episode after 3 steps, before the horizon of 5.*early_ends"):
        run_trial(RandomAgent(family), family, family.sample_tasks(rng.key(0), 2), rng.key(1))
    for other in (
        GymFamily("tests/Impatient-v0", TARGET, horizon=3),
        GymFamily("tests/Impatient-v0", TARGET, early_ends=True),
    ):
        (rollout,) = run_trial(RandomAgent(other), other, other.sample_tasks(rng.key(0), 2), rng.key(1))
        assert len(rollout.mask) == 3 * other.episodes_per_trial
        assert bool(rollout.outcome.terminated.any()) is (other.horizon == 5)


def test_an_error_names_row_and_task():
    family = GymFamily("tests/Target-v0", TARGET)
    task, state = start(family, 3)
    made(family, 1).fails_at = 1
    sentence = r"GymFamily.step failed in row 1 of 3: GymTask\(target=\[[01]\]\): RuntimeError: the motor is broken"
    with pytest.raises(WrongResult, match=sentence):
        family.step(task, state, torch.zeros(3, dtype=torch.int64), keys(3))


# ---- simulators ----------------------------------------------------------------------------------------------------


def test_evaluations_leave_no_more_simulators_than_rows():
    family = GymFamily(max_rows=8, episodes_per_trial=1)
    for _ in range(3):
        metarl.evaluate(RandomAgent(family), family, tasks=20)
        gc.collect()
        assert family.simulators <= 8
    env = made(family)
    family.close()
    assert family.simulators == 0 and env is not None


def test_environments_are_closed_with_the_family():
    family = GymFamily("tests/Target-v0", TARGET)
    start(family)
    env = made(family)
    del family
    gc.collect()
    assert env.closed


def test_workers_play_the_same_episodes():
    parameters = {"g": {"where": "constructor", "train": {"uniform": [5, 15]}}}
    here = GymFamily("Pendulum-v1", parameters, horizon=10)
    there = GymFamily("Pendulum-v1", parameters, horizon=10, workers=2)
    task = here.sample_tasks(rng.key(0), 5)
    (one,), (other,) = (run_trial(RandomAgent(f), f, task, rng.key(1)) for f in (here, there))
    assert torch.equal(one.outcome.reward, other.outcome.reward) and torch.equal(one.step.obs, other.step.obs)
    there.close()


def test_a_worker_that_dies_ends_the_trial_in_a_sentence_and_the_next_one_works():
    family = GymFamily("Pendulum-v1", {"g": {"where": "constructor", "train": {"uniform": [5, 15]}}}, workers=1)
    task, state = start(family)
    os.kill(family._pool._benches[0]._process.pid, signal.SIGKILL)
    with pytest.raises(WrongResult, match="A worker process that steps simulators was killed by signal 9"):
        family.step(task, state, torch.zeros(2, 1), keys(2))
    task, state = start(family)
    family.step(task, state, torch.zeros(2, 1), keys(2))
    family.close()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_to_stop_leaves_the_workers_to_the_process_that_asks(name):
    family = GymFamily("Pendulum-v1", {"g": {"where": "constructor", "train": {"uniform": [5, 15]}}}, workers=1)
    task, state = start(family)
    os.kill(family._pool._benches[0]._process.pid, getattr(signal, name))
    family.step(task, state, torch.zeros(2, 1), keys(2))
    family.close()


def test_workers_end_with_their_process(tmp_path):
    """Also when it is killed: a worker that waits for messages sees the end of the pipe."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os, signal, torch, metarl\nfrom metarl.core import rng\n"
        "if __name__ == '__main__':\n"
        "    family = metarl.make('metarl/Gym-v0', workers=1)\n"
        "    family.reset(family.sample_tasks(rng.key(0), 1), rng.key(1)[None])\n"
        "    print(family._pool._benches[0]._process.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=120)
    worker = int(done.stdout)
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        import time

        time.sleep(0.1)
    pytest.fail("the worker is still there")


def test_copies_have_simulators_of_their_own():
    family = GymFamily("tests/Target-v0", TARGET)
    task, state = start(family)
    for twin in (copy.deepcopy(family), family.drawable()):
        assert twin.simulators == 0 and torch.equal(twin.reset(task, keys(2)).obs, state.obs)
    again = pickle.loads(pickle.dumps(task))
    assert type(again) is type(task) and torch.equal(again.target, task.target)


# ---- spaces --------------------------------------------------------------------------------------------------------


def test_entries_of_a_dict_are_joined_and_parts_say_where():
    with pytest.raises(ValueError, match="observation 'words' has no fixed size: Text"):
        GymFamily("tests/Structured-v0", TARGET)
    family = GymFamily("tests/Structured-v0", TARGET, observe=["bits", "both", "image"])
    assert [(part.name, part.space.shape) for part in family.observation_parts] == [
        ("bits", (2,)), ("both.0", (3,)), ("both.1", (5,)), ("image", (8, 8, 1)),
    ]  # fmt: skip
    _, state = start(family, 1)
    assert state.obs[0, :10].tolist() == [0, 1, 0, 1, 0, 0, 1, 1, 0, 0] and state.obs[0, 10:].eq(200).all()
    assert family.observation_space.shape == (74,) and family.observation_space.contains(state.obs[0].numpy())


def test_an_entry_has_the_bounds_that_observe_gives():
    family = GymFamily("tests/Structured-v0", TARGET, observe={"image": [0, 200], "bits": None})
    assert {part.name: part.space.high.max() for part in family.observation_parts} == {"image": 200.0, "bits": 1.0}
    with pytest.raises(ValueError, match="'bits', which must be a Box, got MultiBinary"):
        GymFamily("tests/Structured-v0", TARGET, observe={"bits": [0, 2]})


@pytest.mark.parametrize(
    ("given", "space", "action", "expected"),
    [
        (spaces.Discrete(3, start=5), spaces.Discrete(3, start=5), torch.tensor([6]), 6),
        (spaces.MultiDiscrete([2, 3]), spaces.MultiDiscrete([2, 3]), torch.tensor([[1, 2]]), [1, 2]),
        (spaces.MultiBinary(2), spaces.MultiDiscrete([2, 2]), torch.tensor([[1, 0]]), [1, 0]),
        (
            spaces.Box(-3.0, 5.0, (2, 1), np.float64),
            spaces.Box(-3.0, 5.0, (2,), np.float32),
            torch.tensor([[7.0, -7.0]]),
            [[5.0], [-3.0]],
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_actions_arrive_in_the_environments_own_space(given, space, action, expected):
    seen = []

    class Spy(environments.Target):
        def __init__(self, **options):
            super().__init__(action_space=given, **options)

        def step(self, action):
            seen.append(action)
            assert self.action_space.contains(action)
            return super().step(action)

    gymnasium.register("tests/Spy-v0", entry_point=Spy, max_episode_steps=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        family = GymFamily("tests/Spy-v0", TARGET)
    gymnasium.registry.pop("tests/Spy-v0")
    assert family.action_space == space
    task, state = start(family, 1)
    family.step(task, state, action, keys(1))
    assert np.array_equal(seen[0], expected)


def test_other_spaces_are_refused():
    family = {"arguments": {"action_space": spaces.Text(3)}}
    with pytest.raises(ValueError, match="must be a Box, Discrete, MultiDiscrete or MultiBinary, got Text"):
        GymFamily("tests/Target-v0", TARGET, **family)


# ---- pictures ------------------------------------------------------------------------------------------------------


def test_pictures_are_those_of_the_environment():
    env = gymnasium.make("metarl/Gym-v0", env="tests/Target-v0", parameters=TARGET, render_mode="rgb_array")
    env.reset(seed=0)
    env.step(0)
    env.step(0)
    assert np.array_equal(env.render(), np.full((4, 6, 3), 2, np.uint8))


def test_a_state_without_a_picture_says_what_to_do():
    family = GymFamily("tests/Target-v0", TARGET)
    task, state = start(family, 1)
    with pytest.raises(NotImplementedError, match="This state of GymFamily has no picture"):
        family.render(task, [state])
    assert take(family.drawable().reset(task, keys(1)), slice(0, 1)).frame.shape == (1, 4, 6, 3)


# ---- mistakes ------------------------------------------------------------------------------------------------------


def length(where: str = "attribute:length", train=None, **more):
    """The options of a family with a single parameter."""
    return {
        "parameters": {"length": {"where": where, "train": {"uniform": [1, 2]} if train is None else train, **more}}
    }


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"env": "CartPol-v1"}, "Unknown Gymnasium environment: 'CartPol-v1'. Did you mean 'CartPole-v"),
        ({"env": "os_like_module:CartPole-v1"}, "is not imported: import os_like_module first, or give --allow"),
        ({"env": 3}, "env must be the id of a Gymnasium environment"),
        ({"env": "Pendulum-v1"}, "parameters must name the numbers of a task"),
        ({"parameters": {}}, "parameters must name at least one number"),
        ({"parameters": {"a-b": {}}}, "must be a Python name"),
        ({"parameters": {"length": {"where": "attribute:length"}}}, "needs `where`"),
        (length("atribute:length"), "Unknown place in length.where"),
        (length("attribute:_length"), "without a leading underscore"),
        (length("attribute:__class__.x"), "without a leading underscore"),
        (length("attribute:lenth"), "Unknown attribute of CartPoleEnv: 'lenth'. Did you mean 'length'?"),
        (length("attribute:step"), "CartPoleEnv has no number in attribute:step"),
        (length("model:body_mass"), "is not a MuJoCo environment"),
        (length(train={"unifrom": [1, 2]}), "Did you mean 'uniform'"),
        (length(train={"uniform": [2, 1]}), "needs [low, high] with low < high"),
        (length(train={"log_uniform": [0, 1]}), "with positive low < high"),
        (length(train={"choice": [1, 1]}), "must not list a value twice"),
        (length(train={"integers": [0, 10**12]}), "at most 1,000,000 whole numbers"),
        (length(train={"choice": [1, 2]}), "`test` would repeat them"),
        (length(ood={"uniform": [1.5, 3]}), "'ood' must lie outside"),
        (length(ood=3), "must be whole numbers in every split, or in none"),
        (length("constructor", factor=True), "length.factor"),
        (length("constructor"), "CartPole-v1 cannot be made with {'length': 1."),
        ({"arguments": {"render_mode": "x\ny", "size": 3}}, "CartPole-v1 cannot be made with {'render_mode'"),
        ({"observe": ["image"]}, "observe chooses entries of a Dict"),
        ({"observe": "image"}, "observe must be names of entries"),
        ({"observe": {"image": [3, 1]}}, "observe must be names of entries"),
        ({"arguments": {"xml_file": "~/robot.xml"}}, "arguments.xml_file must not name a file or a module"),
        ({"arguments": {"env_id": "os:Name-v0"}}, "arguments.env_id must not name a file or a module"),
        ({"horizon": 0}, "horizon must be a whole number of at least 1"),
        ({"workers": -1}, "workers must be a whole number of at least 0"),
        ({"parameters": ["length"]}, "parameters must name at least one number of a task, got ['length']"),
        (length("seed"), "length is a seed, which is a whole number: use integers"),
        ({"arguments": ["x"]}, "arguments must be a dictionary"),
        (length("constructor:render_mode") | {"arguments": {"render_mode": "x"}}, "'render_mode' is given twice"),
        ({"shows_task": "yes"}, "shows_task must be True or False"),
        ({"early_ends": 1}, "early_ends must be True or False"),
        ({"env": environments.Target}, "gets an id by gymnasium.register"),
    ],
)  # fmt: skip
def test_mistakes_end_in_one_sentence(options, sentence):
    with pytest.raises(ValueError) as caught:
        metarl.make("metarl/Gym-v0", **options)
    assert sentence in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) <= 300


HERE = np.zeros(2)


@pytest.mark.parametrize(
    ("method", "reply", "sentence"),
    [
        ("reset", HERE, "Replies.reset must return an observation and a dict of infos, got array([0., 0.])"),
        ("reset", (np.zeros(1), {}), "the observation must have the shape (2,) of its space, got (1,)"),
        ("step", (HERE, 0.0, False, {}), "Replies.step must return five values (observation, reward, terminated, "),
        ("step", (np.zeros((1, 2)), 0.0, False, False, {}), "must have the shape (2,) of its space, got (1, 2)"),
        ("step", (HERE, None, False, False, {}), "Replies.step must return one number as the reward, got None"),
        ("step", (HERE, "1", False, False, {}), "must return one number as the reward, got '1'"),
        ("step", (HERE, np.ones(1), False, False, {}), "must return one number as the reward, got array([1.])"),
        ("step", (HERE, 0.0, None, False, {}), "must return terminated as True or False, got None"),
        ("step", (HERE, 0.0, False, "no", {}), "must return truncated as True or False, got 'no'"),
        ("step", (HERE, 0.0, False, False, {"n": 1}), "success is 'is_success', an entry that the infos of"),
        ("step", (HERE, 0.0, False, False, None), "success is 'is_success', an entry that the infos of"),
    ],
)  # fmt: skip
def test_a_wrong_reply_of_an_environment_is_said_in_one_sentence(monkeypatch, method, reply, sentence):
    monkeypatch.setattr(environments.Replies, f"{method}_replies", reply)
    family = GymFamily("tests/Replies-v0", TARGET, success="is_success")
    with pytest.raises(WrongResult) as caught:
        task, state = start(family)
        family.step(task, state, torch.zeros(2, dtype=torch.int64), keys(2))
    assert sentence in str(caught.value) and str(caught.value).startswith(f"GymFamily.{method} failed in row 0 of 2")
    assert not hasattr(caught.value, "__notes__"), "the sentence says it all"


def test_rewards_and_endings_of_any_library_are_taken(monkeypatch):
    family = GymFamily("tests/Replies-v0", TARGET)
    for reward, end in ((np.float64(2), np.bool_(True)), (torch.tensor(2.0), torch.tensor(True)), (2, np.array([1]))):
        monkeypatch.setattr(environments.Replies, "step_replies", (HERE, reward, end, False, {}))
        task, state = start(family)
        _, rewards, ended = family.step(task, state, torch.zeros(2, dtype=torch.int64), keys(2))
        assert rewards.tolist() == [2, 2] and ended.all()


def test_a_users_task_is_checked():
    family = GymFamily("tests/Target-v0", {"layout": {"where": "seed", "train": 1, "test": 2}})
    kind = type(family.sample_tasks(rng.key(0), 1))
    with pytest.raises(ValueError, match="layout must be from 0 to"):
        checked_task(family, kind(torch.tensor([-1])))


def test_its_description_has_every_option_that_changes_an_episode():
    told = repr(GymFamily("CartPole-v1", success="solved", horizon=30))
    assert "success='solved'" in told and "horizon=30" in told and "observe" not in told
