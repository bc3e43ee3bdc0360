"""Meta-World's benchmarks: equal to the original's own steps and goals, and the original's traps.

Most of it needs Meta-World, which has an environment of its own: ``make test-metaworld``.
"""

from __future__ import annotations

import functools
import importlib.util
import pickle
import subprocess
import sys
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from registered_families import ELSEWHERE, PRESETS_ELSEWHERE

import metarl
from metarl.agents.reference.catalogue import baseline
from metarl.core import rng
from metarl.core.rollout import run_trial
from metarl.core.tree import num_rows, take
from metarl.envs.meta_world import library
from metarl.envs.meta_world.benchmarks import ML1, ML10, ML45, MT10, Manipulation, MetaWorld
from metarl.envs.meta_world.simulator import MetaWorldSimulator
from metarl.interop.gym_env import GymEnv
from metarl.testing import check_family
from metarl.testing.families import quick_check
from metarl.training.config.parsing import read

there = importlib.util.find_spec("metaworld") is not None
needs_meta_world = pytest.mark.skipif(not there, reason="Meta-World is not installed: make test-metaworld")
BENCHMARKS = (ML1, ML10, MT10)


@pytest.fixture(scope="module")
def ml10() -> ML10:
    return ML10()


@functools.cache
def original(benchmark: str, *args: Any, seed: int = 0) -> Any:
    import metaworld

    return getattr(metaworld, benchmark)(*args, seed=seed)


def vectors(tasks: Any) -> list[tuple[str, bytes]]:
    """Meta-World's own tasks as the environment's name and the bytes of its `rand_vec`."""
    return [(task.env_name, np.asarray(pickle.loads(task.data)["rand_vec"]).tobytes()) for task in tasks]


def tasks_of(family: MetaWorld, split: str) -> list[tuple[str, bytes]]:
    """A split's tasks in the same form, with the digits that its simulators play."""
    task, layouts = family.tasks_of(split), family.simulators_of.layouts()
    found = []
    for index, layout in zip(task.environment.tolist(), task.layout.numpy(), strict=True):
        name = family.environments[index]
        found.append((name, layouts[name][layout.tobytes()].tobytes()))
    return found


def distinct(task: Manipulation) -> set[bytes]:
    both = torch.cat([task.environment[:, None].to(torch.float32), task.layout], dim=1)
    return {row.tobytes() for row in both.numpy()}


def actions(steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, 4)).astype(np.float32)


# ---- without Meta-World ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", sorted(ELSEWHERE))
def test_without_meta_world_a_sentence_says_what_to_install(id: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "metaworld", None)
    library.library.cache_clear()
    with pytest.raises(ValueError, match=r"^Meta-World needs 'metaworld', .*: pip install 'metarl\[metaworld\]' .*\.$"):
        metarl.make(id)


def test_the_ids_are_registered_without_importing_meta_world():
    code = "import sys, metarl; print('metarl/ML10-v0' in metarl.registered(), 'metaworld' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


# ---- what the families are ------------------------------------------------------------------------------------------


@needs_meta_world
def test_another_mujoco_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch):
    import mujoco

    monkeypatch.setattr(mujoco, "__version__", "4.0.0")
    library.library.cache_clear()
    with pytest.raises(ValueError, match=r"made for mujoco 3\.3\.0, but this is 4\.0\.0: pip install .*\.$"):
        ML1()
    library.library.cache_clear()


@needs_meta_world
def test_train_and_test_are_as_published():
    theirs, ours = original("ML10"), ML10()
    assert tasks_of(ours, "train") == vectors(theirs.train_tasks)
    assert tasks_of(ours, "test") == vectors(theirs.test_tasks)
    assert ours.environments == (*theirs.train_classes, *theirs.test_classes)
    assert ours.num_tasks("train") == 500 and ours.num_tasks("test") == 250


@needs_meta_world
@pytest.mark.parametrize("env", ["reach-v3", "door-open-v3", "stick-pull-v3"])
def test_ml1_of_any_environment(env: str):
    theirs, ours = original("ML1", env, seed=3), ML1(env, goal_seed=3)
    assert tasks_of(ours, "train") == vectors(theirs.train_tasks)
    assert tasks_of(ours, "test") == vectors(theirs.test_tasks)


@needs_meta_world
def test_the_benchmarks_hold_as_many_environments_as_their_names_say():
    for family, train, test in ((ML10(), 10, 5), (ML45(), 45, 5), (MT10(), 10, 0)):
        ours = library.names(family.benchmark)
        assert (len(ours[0]), len(ours[1])) == (train, test) and len(family.environments) == train + test
    assert len(library.environments()) == 50


@needs_meta_world
def test_mt10_is_as_published_and_has_no_tests():
    family = MT10()
    assert tasks_of(family, "train") == tasks_of(family, "all") == vectors(original("MT10").train_tasks)
    with pytest.raises(ValueError, match="Unknown split of MT10: 'test'"):
        family.tasks_of("test")


@needs_meta_world
@pytest.mark.parametrize("family", [ML1, ML10])
def test_splits_are_disjoint_and_valid_is_a_fixed_part_of_train(family: type[MetaWorld]):
    made = family()
    train, valid, test = (distinct(made.tasks_of(split)) for split in ("train", "valid", "test"))
    assert not train & test and not valid & test and valid < train
    assert len(train) == made.num_tasks("train"), "each task once"
    assert distinct(family().tasks_of("valid")) == valid
    assert len(valid) == len(train) // 3


@needs_meta_world
def test_the_first_goals_of_each_environment():
    all_of_it, part = ML10(), ML10(test_goals=40)
    assert part.num_tasks("test") == 200 and part.num_tasks("train") == 500
    every, rows = all_of_it.tasks_of("test"), part.rows_by_environment(part.tasks_of("test"))
    assert {name: len(each) for name, each in rows.items()} == dict.fromkeys(part.environments[10:], 40)
    for name, each in all_of_it.rows_by_environment(every).items():
        assert torch.equal(part.tasks_of("test").layout[rows[name]], every.layout[each[:40]])


@needs_meta_world
@pytest.mark.parametrize("given", ["window-close-v3", "window-close"])
def test_names_of_environments(given: str):
    assert ML1(given).environments == ("window-close-v3",) and ML1(given).env == "window-close-v3"


@needs_meta_world
def test_wrong_options_and_tasks_are_said_in_a_sentence():
    for wrong, said in (
        ({"env": "reech-v3"}, "Unknown environment of Meta-World: 'reech-v3'. Did you mean 'reach-v3'?"),
        ({"horizon": 501}, "horizon must be at most 500, Meta-World's own limit, got 501."),
        ({"test_goals": 51}, "test_goals must be at most 50, as many as are published, got 51."),
        ({"goal_seed": -1}, "goal_seed must be a whole number of at least 0, got -1."),
    ):
        with pytest.raises(ValueError) as error:
            ML1(**wrong)
        assert str(error.value).startswith(said)
    task = ML1().sample_tasks(rng.key(0), 2)
    with pytest.raises(ValueError, match="environment must be from 0 to 0"):
        ML1().check_task(task._replace(environment=task.environment + 1))


@needs_meta_world
@pytest.mark.parametrize("family", [ML1, MT10])
def test_the_contract(family: type[MetaWorld]):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Gymnasium's checkers, about spaces without bounds
        check_family(family(horizon=5, episodes_per_trial=2))


# ---- equal to the original -------------------------------------------------------------------------------------------


@needs_meta_world
@pytest.mark.parametrize("env", ["reach-v3", "door-unlock-v3", "push-v3", "stick-pull-v3", "shelf-place-v3"])
def test_episodes_are_the_original_s_bit_for_bit(env: str):
    """The whole episode: with a layout of float32 digits the lock of door-unlock ends up centimetres away."""
    theirs, family = original("ML1", env), ML1(env)
    number = 7
    their_env = theirs.test_classes[env]()
    their_env.set_task(theirs.test_tasks[number])
    expected, _ = their_env.reset()
    task = take(family.tasks_of("test"), torch.tensor([number]))
    state = family.reset(task, rng.key(5)[None])
    for t, action in enumerate(actions(500)):
        assert np.array_equal(family.observe(task, state)[0].numpy(), expected.astype(np.float32)), t
        state, reward, terminated = family.step(task, state, torch.from_numpy(action)[None], rng.key(0)[None])
        expected, their_reward, _, truncated, info = their_env.step(action)
        assert float(reward[0]) == np.float32(their_reward) and not bool(terminated[0])
        assert bool(family.success(task, state)[0]) == bool(info["success"])
        assert truncated == (t == 499)


@needs_meta_world
def test_a_simulator_that_played_other_tasks_gives_the_episode_of_a_new_one(ml10: ML10):
    """Meta-World's reset runs the simulation; nothing of an earlier task or episode is left after it."""
    train = ml10.tasks_of("train")
    for name, rows in ml10.rows_by_environment(train).items():
        first, other = ({"layout": train.layout[row].numpy()} for row in rows[:2])
        used, new = MetaWorldSimulator(name), MetaWorldSimulator(name)
        used.reset(other, 1)
        for action in actions(40, seed=1):
            used.step(action)
        assert np.array_equal(used.reset(first, 2), new.reset(first, 3)), name
        for action in actions(30):
            one, two = used.step(action), new.step(action)
            assert np.array_equal(one.obs, two.obs) and one.reward == two.reward, name


@needs_meta_world
def test_actions_are_clipped():
    task = {"layout": ML1().tasks_of("train").layout[0].numpy()}
    one, two = MetaWorldSimulator("reach-v3"), MetaWorldSimulator("reach-v3")
    one.reset(task, 0)
    two.reset(task, 0)
    for action in actions(10):
        a, b = one.step(3.0 * action), two.step(np.clip(3.0 * action, -1.0, 1.0))
        assert np.array_equal(a.obs, b.obs) and a.reward == b.reward


@needs_meta_world
def test_the_goal_is_hidden_in_ml_and_seen_in_mt():
    hidden, seen = ML1(horizon=3), MT10(horizon=3)
    for family, shown in ((hidden, False), (seen, True)):
        task = family.sample_tasks(rng.key(0), 4)
        (rollout,) = run_trial(baseline("random", family), family, task, rng.key(1), episodes=1)
        assert bool((rollout.step.obs[..., 36:] != 0).any()) == shown
        assert rollout.step.obs.dtype is torch.float32 and rollout.step.obs.shape[2:] == (39,)


@needs_meta_world
def test_worker_processes_play_the_same_episodes():
    played = []
    for workers in (0, 2):
        family = ML10(horizon=20, workers=workers)
        task = take(family.tasks_of("train"), torch.arange(0, 500, 125))
        (rollout,) = run_trial(baseline("random", family), family, task, rng.key(1), episodes=2)
        played.append(rollout)
        family.close()
    assert torch.equal(played[0].step.obs, played[1].step.obs)
    assert torch.equal(played[0].outcome.reward, played[1].outcome.reward)


# ---- playing and learning -------------------------------------------------------------------------------------------


@needs_meta_world
def test_the_scripted_policies_solve_an_episode_of_every_environment(ml10: ML10):
    for split in ("train", "test"):
        task = ml10.tasks_of(split)
        rows = torch.cat([each[:1] for each in ml10.rows_by_environment(task).values()])
        curve = metarl.evaluate(
            baseline("oracle", ml10), ml10, tasks=take(task, rows), episodes=1, repeats=1, step_curve=False
        )
        which, share = curve.success_by("environment")
        assert [ml10.environments[int(index)] for index in which] == [
            ml10.environments[i] for i in task.environment[rows]
        ]
        assert share.min() == 1.0 and curve.summary()["success"] == 1.0
        assert float(np.mean(curve.random)) < 0.3 * curve.summary()["score"]


@needs_meta_world
def test_an_episode_is_solved_by_success_at_any_step():
    """The hand goes to the goal and, once it was there, away from it: the episode is solved, its last step is not."""
    family = ML1(horizon=200)
    task = take(family.tasks_of("test"), torch.arange(2))
    script = baseline("oracle", family)

    class ThereAndAway(type(script)):  # type: ignore[misc]
        def act(self, memory, step, key, greedy=False):
            acted, memory = super().act(memory, step, key, greedy)
            self.steps = getattr(self, "steps", 0) + 1
            away = torch.tensor([0.0, -1.0, 0.0, 0.0]).expand(2, 4)
            return (acted if self.steps <= 100 else acted._replace(action=away)), memory

    curve = metarl.evaluate(ThereAndAway(family), family, tasks=task, episodes=1, repeats=1, step_curve=False)
    assert curve.success is not None and curve.success.min() == 1.0
    near = family.reset(task, rng.key(0).expand(2))
    player = ThereAndAway(family)
    memory = player.begin(2, task)
    step = run_trial(baseline("random", family), family, task, rng.key(0), episodes=1)[0].step
    step = type(step)(*(part[0] for part in step))
    for _ in range(200):
        acted, memory = player.act(memory, step._replace(obs=family.observe(task, near)), rng.key(0).expand(2))
        near, _, _ = family.step(task, near, acted.action, rng.key(0).expand(2))
    assert not bool(family.success(task, near).any()), "the last step is not a success"


@needs_meta_world
@pytest.mark.parametrize("agent", ["RL2", "MAML"])
def test_agents_train(agent: str, tmp_path):
    small = {"RL2": {"hidden_size": 8, "num_minibatches": 1}, "MAML": {"fast_batch_size": 2}}[agent]
    run = metarl.run(
        family={"name": "metarl/ML1-v0", "horizon": 10, "episodes_per_trial": 2},
        agent={"name": agent, "meta_batch_size": 2, **small},
        total_iterations=2, eval_tasks=2, final_eval_tasks=2, eval_every=0, run_dir=str(tmp_path / "run"), device="cpu",
    )  # fmt: skip
    assert {"train", "test"} <= set(run.curves) and run.curves["test"].success is not None


@needs_meta_world
@pytest.mark.parametrize("preset", PRESETS_ELSEWHERE)
def test_the_presets_may_be_trained(preset: str):
    config = read(preset)
    assert type(config.family) is ML1 and quick_check(config.family, config.train_split) == []


@needs_meta_world
def test_the_gymnasium_view_tells_success():
    env = GymEnv(ML1(horizon=5))
    obs, _ = env.reset(seed=1)
    assert obs.shape == (39,)
    _, _, terminated, truncated, info = env.step(env.action_space.sample())
    assert "success" in info and not terminated and not truncated


# ---- the original's traps -------------------------------------------------------------------------------------------


@needs_meta_world
def test_trap_the_registered_training_environment_yields_only_test_tasks():
    """Meta-World's own id: its split is a loop's variable, read after the loop. Ours yields the split that is asked."""
    envs = gymnasium.make_vec("Meta-World/ML1-train", env_name="reach-v3", seed=0, meta_batch_size=2)
    shown = [vector for env in envs.envs for vector in vectors(env.get_wrapper_attr("tasks"))]
    family = ML1("reach-v3")
    assert set(shown) == set(tasks_of(family, "test")) and not set(shown) & set(tasks_of(family, "train"))
    for split in ("train", "test"):
        drawn = family.sample_tasks(rng.key(0), 2000, split)
        assert distinct(drawn) == distinct(family.tasks_of(split))


@needs_meta_world
def test_trap_the_number_of_environments_is_ignored_or_raises():
    """Meta-World's own ids do not do what `num_envs` asks; ours do."""
    envs = gymnasium.make_vec("Meta-World/MT10", num_envs=3)
    assert envs.num_envs == 10
    with pytest.raises(AssertionError, match="Invalid division of subtasks"):
        gymnasium.make_vec("Meta-World/ML1-train", env_name="reach-v3")
    ours = gymnasium.make_vec("metarl/ML1-v0", num_envs=3, horizon=5)
    assert ours.num_envs == 3 and ours.reset(seed=0)[0].shape == (3, 39)


@needs_meta_world
def test_trap_ml25_tests_an_environment_that_it_trains_on():
    """So there is no family of it here; the benchmarks that there are share none."""
    train, test = library.names("ML25")
    assert set(train) & set(test) == {"basketball-v3"}
    for benchmark in ("ML10", "ML45"):
        train, test = library.names(benchmark)
        assert not set(train) & set(test)
    assert "metarl/ML25-v0" not in metarl.registered()


@needs_meta_world
def test_trap_the_next_seed_trains_on_what_this_one_tests():
    """The card says so; within one `goal_seed` the splits share nothing."""
    assert tasks_of(ML1(goal_seed=1), "train") == tasks_of(ML1(goal_seed=0), "test")
    assert "the seed `goal_seed` + 1" in (ML1.__doc__ or "")


@needs_meta_world
@pytest.mark.parametrize("family", [ML1, ML10])
def test_trap_the_first_observation_identifies_a_training_task(family: type[MetaWorld]):
    """It shows where the thing is: 20 of 20 tasks differ in it. The card says so."""
    made = family()
    task = made.sample_tasks(rng.key(2), 60)
    unique = sorted({row.tobytes(): number for number, row in enumerate(task.layout.numpy())}.values())[:20]
    task = take(task, torch.tensor(unique))
    obs = made.observe(task, made.reset(task, rng.fold(rng.key(0), torch.arange(num_rows(task)))))
    assert len({row.tobytes() for row in obs.numpy()}) == num_rows(task) == 20
    assert "identifies a training task" in " ".join((family.__doc__ or "").split())


@needs_meta_world
def test_trap_the_seed_of_reset_is_ignored():
    """An episode is a function of the task and the actions: two seeds begin alike, and so do two keys of ours."""
    theirs = original("ML1", "push-v3")
    env = theirs.train_classes["push-v3"]()
    env.set_task(theirs.train_tasks[0])
    assert np.array_equal(env.reset(seed=1)[0], env.reset(seed=2)[0])
    family = ML1("push-v3")
    task = take(family.tasks_of("train"), torch.tensor([0]))
    one, two = (family.observe(task, family.reset(task, rng.key(n)[None])) for n in (1, 2))
    assert torch.equal(one, two)
