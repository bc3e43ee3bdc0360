"""Small inputs that once trained silently, or ended in another library's words: each stands for a kind of fault.

A mistake of the user's ends in one sentence and exit code 2, before anything is written; what is no mistake works.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
import wrong_families
from gymnasium.vector import AutoresetMode

import metarl
from metarl import train
from metarl.agents.rl2 import RL2Config
from metarl.interop.gym_env import GymEnv
from metarl.interop.sb3_env import SB3VecEnv

ROOT = Path(__file__).parents[1]
SHORT = "--total_iterations=3 --eval_every=1 --eval_tasks=8 --final_eval_tasks=8 --num_threads=1 --device=cpu"
RL2 = f"--agent=RL2 --agent.meta_batch_size=8 --agent.hidden_size=8 --agent.num_minibatches=2 {SHORT}".split()
MAML = f"--agent=MAML --agent.meta_batch_size=4 --agent.fast_batch_size=4 {SHORT}".split()
PPO = f"--agent=PPO --agent.meta_batch_size=4 --agent.batch_size=4 {SHORT}".split()

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Train ``wrong/NAME-v0`` in an empty folder: the exit code, and what standard error said."""
    monkeypatch.chdir(tmp_path)

    def call(name: str, *args: str) -> tuple[int, str]:
        code = train.main([f"--family=wrong/{name}-v0", *args])
        return code, capsys.readouterr().err

    return call


def refused(code: int, said: str) -> bool:
    """One sentence, exit code 2, and nothing in the folder."""
    return code == 2 and len(said.splitlines()) == 1 and "Traceback" not in said and not list(Path().iterdir())


def program(*args: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *args], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def evaluation(run_dir: str | Path, split: str) -> dict:
    """The JSON of a run's final evaluation, read strictly."""
    text = (Path(run_dir) / "evaluation" / f"{split}.json").read_text(encoding="utf-8")
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_runs_started_in_one_second_have_a_directory_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    args = ["-m", "metarl.train", "--config", "rl2_gridnavi", "--agent.meta_batch_size", "8", "--total_iterations", "5"]
    args += ["--final_eval_tasks", "0", "--num_threads", "1", "--quiet"]
    started = [program(*args, "--agent.lr", lr) for lr in ("1e-3", "1e-4", "1e-5")]
    said = [process.communicate(timeout=240)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], said
    written = sorted(Path("runs").iterdir())
    assert len(written) == 3
    assert all(len((each / "metrics.jsonl").read_text().splitlines()) == 5 for each in written)
    rates = {line for each in written for line in (each / "config.yaml").read_text().splitlines() if " lr:" in line}
    assert len(rates) == 3, "each directory holds a run of its own"


@pytest.mark.parametrize("agent", [RL2, MAML, PPO], ids=["RL2", "MAML", "PPO"])
def test_discrete_actions_that_do_not_start_at_0(run: Run, agent: list[str]):
    """The family asserts that it is given actions 1 and 2."""
    code, said = run("Start", *agent, "--run_dir=run")
    assert code == 0, said
    assert all(np.isfinite(evaluation("run", split)["summary"]["score"]) for split in ("train", "test"))


def test_discrete_actions_that_do_not_start_at_0_in_the_views():
    single, several = GymEnv(wrong_families.Start()), SB3VecEnv(wrong_families.Start(), 2)
    single.reset(seed=0)
    several.seed(0)
    several.reset()
    for action in (1, 2):
        single.step(action)
        several.step(np.array([action, 3 - action]))
    for action in (0, 3):
        with pytest.raises(ValueError, match=r"1.*2.*\.$"):
            single.step(action)
        with pytest.raises(ValueError, match=r"1.*2.*\.$"):
            several.step(np.array([1, action]))


def test_an_ending_that_was_not_declared(run: Run):
    code, said = run("Ends", *RL2)
    assert refused(code, said) and "terminates = True" in said


def test_float64_rewards(run: Run):
    code, said = run("Double", *RL2)
    assert refused(code, said) and "float32" in said and "float64" in said


def test_a_split_of_its_own_name(run: Run):
    code, said = run("OwnSplit", *RL2, "--eval_splits=[validation]", "--run_dir=run")
    assert code == 0, said
    assert evaluation("run", "validation")["split"] == "validation"


def test_an_oracle_with_a_column_too_many(run: Run):
    code, said = run("Column", *RL2)
    assert refused(code, said) and "Column.oracle" in said and "(7, 1)" in said


@pytest.mark.parametrize("agent", [PPO, RL2, MAML], ids=["PPO", "RL2", "MAML"])
def test_returns_that_are_all_equal(run: Run, agent: list[str]):
    """An explained variance of nothing is not defined; that is no divergence."""
    code, said = run("AllEqual", *agent, "--run_dir=run")
    assert code == 0, said
    assert len(Path("run/metrics.jsonl").read_text().splitlines()) == 3
    assert evaluation("run", "test")["points"]["mean"][0] == 1.0


@pytest.mark.parametrize("agent", [RL2, MAML, PPO], ids=["RL2", "MAML", "PPO"])
def test_actions_without_bounds(run: Run, agent: list[str]):
    """It trains, or one sentence says that it is the bounds, and what to do."""
    code, said = run("Free", *agent, "--run_dir=run")
    if code == 0:
        assert np.isfinite(evaluation("run", "test")["summary"]["score"])
    else:
        assert refused(code, said) and "bound" in said


def bandit(arms: int):
    return metarl.make("metarl/BernoulliBandit-v0", num_arms=arms)


def test_an_agent_on_other_spaces():
    agent = RL2Config(meta_batch_size=8).build(bandit(5), 1, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"made for the actions 0 … 4.*are 0 … 9\.$"):
        metarl.evaluate(agent, bandit(10), tasks=50)


def test_arguments_of_numpy_and_tasks_as_the_view_samples_them(tmp_path: Path):
    agent = RL2Config(meta_batch_size=8).build(bandit(5), 1, torch.device("cpu"))
    tasks = gymnasium.make("metarl/BernoulliBandit-v0").unwrapped.sample_tasks(5)
    assert metarl.evaluate(agent, bandit(5), tasks=tasks).returns.shape[1] == 5
    by_number = metarl.evaluate(agent, bandit(5), tasks=np.int64(5), episodes=np.int32(3), seed=np.int64(1))
    assert np.array_equal(by_number.returns, metarl.evaluate(agent, bandit(5), tasks=5, episodes=3, seed=1).returns)
    greedy = metarl.evaluate(agent, bandit(5), tasks=5, greedy=np.bool_(True))
    greedy.save(tmp_path / "curve")
    assert json.loads((tmp_path / "curve.json").read_text())["greedy"] is True
    for wrong in ({"tasks": 2.5}, {"tasks": []}, {"tasks": 5, "episodes": 1.5}, {"tasks": 5, "greedy": "yes"}):
        with pytest.raises(ValueError, match=r"^\w+ must .*\.$"):
            metarl.evaluate(agent, bandit(5), **wrong)


OWN = """\
import sys
import metarl
import wrong_families
from metarl.train import main
class Own(wrong_families.Line):
    "In the program itself."
metarl.register("own/Own-v0", Own)
sys.exit(main(sys.argv[1:]))
"""


def test_a_family_in_the_program_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    for name in ("__main__.Own", "own/Own-v0"):
        process = program("-W", "ignore", "own.py", f"--family={name}", *RL2, "--run_dir=run")
        shown, said = process.communicate(timeout=240)
        assert process.returncode == 2 and not shown and len(said.splitlines()) == 1
        assert "__main__" in said and "could not be loaded" in said and "--allow MODULE" in said
    assert not Path("run").exists()


ID = "metarl/GridNavi-v0"


WRAPPERS = ["NormalizeObservation", "FlattenObservation", "NormalizeReward", "RecordEpisodeStatistics"]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_gymnasium_s_vector_wrappers(wrapper: str):
    env = getattr(gymnasium.wrappers.vector, wrapper)(gymnasium.make_vec(ID, num_envs=2))
    obs, _ = env.reset(seed=0)
    assert len(obs) == 2
    for _ in range(40):
        obs, reward, *_ = env.step(env.action_space.sample())
    assert len(obs) == len(reward) == 2


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_the_autoreset_mode_is_an_option(mode: AutoresetMode):
    env = gymnasium.make_vec(ID, num_envs=2, autoreset_mode=mode)
    assert env.metadata["autoreset_mode"] == mode
    default = gymnasium.make_vec(ID, num_envs=2).metadata["autoreset_mode"]
    assert default == AutoresetMode.NEXT_STEP, "as Gymnasium's own"


def test_max_episode_steps():
    env = gymnasium.make_vec(ID, num_envs=2, max_episode_steps=3)
    env.reset(seed=0)
    ends = [env.step(np.zeros(2, dtype=np.int64))[3].tolist() for _ in range(3)]
    assert ends == [[False, False], [False, False], [True, True]]
    env = gymnasium.wrappers.TimeAwareObservation(gymnasium.make(ID))
    obs, _ = env.reset(seed=0)
    assert obs in env.observation_space


@pytest.mark.parametrize("make", [gymnasium.make, gymnasium.make_vec])
def test_an_unknown_keyword_is_a_type_error_in_the_usual_words(make: Callable):
    """TorchRL drops the keywords that it only tries when it reads these words."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'frameskip'"):
        make(ID, frameskip=1)


@pytest.mark.parametrize(
    ("id", "actions"),
    [("CartPole", [99, -7]), ("CartPole", [0, 2]), ("GridNavi", [-1, 0]), ("GridNavi", [0.7, 1.9]), ("GridNavi", [0])],
)
def test_impossible_actions_in_stable_baselines3_s_view(id: str, actions: list[float]):
    env = SB3VecEnv(f"metarl/{id}-v0", 2)
    env.seed(0)
    env.reset()
    with pytest.raises(ValueError, match=r"[Aa]ction.*\.$"):
        env.step(np.array(actions))


def test_not_a_number_for_an_action_in_stable_baselines3_s_view():
    env = SB3VecEnv("metarl/Navigation2D-v0", 2)
    env.seed(0)
    env.reset()
    with pytest.raises(ValueError, match=r"[Aa]ction.*\.$"):
        env.step(np.array([[0.0, np.nan], [0.0, 0.0]], np.float32))


def test_any_array_of_possible_actions_is_taken_by_stable_baselines3_s_view():
    shown = []
    for actions in (np.array([0, 1])[::-1], np.array([1, 0]), np.array([1, 0], np.int32), [1, 0]):
        env = SB3VecEnv(ID, 2)
        env.seed(0)
        env.reset()
        shown.append(env.step(actions)[0])
    assert all(np.array_equal(each, shown[0]) for each in shown)


def test_an_evaluation_that_is_not_a_number_is_told_and_its_json_is_json(run: Run):
    code, said = run("NotANumber", *RL2, "--run_dir=run")
    assert code == 0
    assert "some of the 'test' tasks are not finite" in said.splitlines()[0], "before training"
    assert "On 'test' these are not finite numbers: returns of 8 of 8 tasks" in said
    assert evaluation("run", "test")["summary"]["score"] is None
    assert np.isfinite(evaluation("run", "train")["summary"]["score"])
    for line in Path("run/metrics.jsonl").read_text().splitlines():
        record = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert record.get("eval/test/score") is None
    program_said = program(
        "-m", "metarl", "evaluate", "run", "--allow=wrong_families", "--tasks", "8", "--out", "again"
    )
    shown, said = program_said.communicate(timeout=240)
    assert program_said.returncode == 0 and "not finite" in said + shown
    json.loads(Path("again/test.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
