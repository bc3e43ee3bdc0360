"""Task samplers in the loop of training: what is learned from, what is counted, and exact resumes."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_torchrun import torchrun

import metarl
from metarl import train
from metarl.core import rng
from metarl.core.rollout import run_trial
from metarl.learning.samplers.plr import PLR, PLROptions
from metarl.learning.samplers.sampler import Proposal
from metarl.training import loop, state_file
from metarl.training.config.errors import ConfigError
from metarl.training.config.parsing import parse, read
from metarl.training.loop import TRAINING, Iteration
from metarl.training.state_file import Counters

RL2 = ["--agent=RL2", "--agent.hidden_size=8", "--agent.update_epochs=1", "--agent.num_minibatches=1"]
POINT = ["--family=SparsePointRobot", *RL2]
MAML = ["--family=SparsePointRobot", "--agent=MAML", "--agent.fast_batch_size=2", "--agent.hidden_sizes=[8]"]
CART = ["--family=CartPole", "--family.horizon=20", *RL2]
SMALL = ["--agent.meta_batch_size=6", "--eval_every=0", "--final_eval_tasks=0", "--num_threads=1", "--device=cpu"]
PLR_SMALL = ["--task_sampler.capacity=12", "--task_sampler.min_fill=0.5"]
RUNS = {
    "PLR": [*POINT, "--task_sampler=PLR", *PLR_SMALL],
    "robust PLR": [*POINT, "--task_sampler=plr", "--task_sampler.robust=true", *PLR_SMALL],
    "PLR by positive value loss": [
        *POINT, "--agent.critic=task", "--task_sampler=plr", "--task_sampler.score=positive_value_loss", *PLR_SMALL,
    ],
    "PLR by regret, MAML": [*MAML, "--task_sampler=plr", "--task_sampler.score=regret", *PLR_SMALL],
    "ACCEL": [*CART, "--task_sampler=accel", *PLR_SMALL],
    "SFL": [*POINT, "--task_sampler=sfl", "--task_sampler.candidates=9", "--task_sampler.keep=4",
            "--task_sampler.every=3"],
    "RoML": [*MAML, "--task_sampler=roml", "--task_sampler.batch=15"],
    "PAIRED": [*CART, "--task_sampler=paired"],
}  # fmt: skip


def command(name: str, run_dir: Path, iterations: int = 6) -> list[str]:
    base = ["--config", "rl2_wall_maze", "--checkpoint_every=2", "--quiet", f"--run_dir={run_dir}"]
    return [*base, f"--total_iterations={iterations}", *SMALL, *RUNS[name]]


def saved(run_dir: Path) -> state_file.Saved:
    return state_file.read(run_dir / "checkpoint.safetensors")


def logged(run_dir: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in each.items() if not k.startswith("time/") and k != "seconds"} for each in lines]


@pytest.mark.parametrize("name", [name for name in RUNS if name != "robust PLR"])  # as in ACCEL
def test_a_resumed_run_is_exactly_the_uninterrupted_one(name: str, tmp_path: Path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train.main(command(name, whole)) == 0

    def stop(number: int, metrics: dict[str, float]) -> None:
        if number == 3:  # after the checkpoint of iteration 2
            raise KeyboardInterrupt

    parsed = parse(command(name, cut))
    with pytest.raises(KeyboardInterrupt):
        loop.train(parsed, _silent(), lambda sentence: None, stop)
    assert train.main([f"--resume={cut}", "--quiet"]) == 0
    left, right = saved(whole), saved(cut)
    assert left.state.keys() == right.state.keys() and left.sampler.keys() == right.sampler.keys()
    for part in ("state", "sampler"):
        for key, value in getattr(left, part).items():
            assert torch.equal(value, getattr(right, part)[key]), key
    assert left.sampler
    assert logged(whole) == logged(cut)
    documented = Path(__file__, "../../../docs/metrics.md").resolve().read_text(encoding="utf-8")
    tags = {tag for line in logged(whole) for tag in line if tag.startswith("tasks/")}
    assert tags and all(f"`{tag}`" in documented for tag in tags)


def _silent():
    from metarl.report.console import silent_console

    return silent_console()


def test_a_run_that_has_only_begun_goes_on(tmp_path: Path):
    """The buffer in its checkpoint is empty."""
    run = tmp_path / "run"
    assert train.main(command("PLR", run, 0)) == 0
    assert len(saved(run).sampler["score"]) == 0
    assert train.main([f"--resume={run}", "--quiet", "--total_iterations=1"]) == 0
    assert len(saved(run).sampler["score"]) == 6


def test_the_default_is_new_draws_with_the_keys_of_ever(tmp_path: Path):
    config = read("rl2_wall_maze", [*SMALL, *POINT])
    assert type(config.task_sampler).__name__ == "FreshOptions"
    agent, other = (config.agent.build(config.family, 1, torch.device("cpu")) for _ in range(2))
    iterate, done = Iteration(agent, config, torch.device("cpu")), Counters()
    for number in range(2):
        done = iterate(done).done
        key = rng.fold(rng.fold(rng.key(config.seed), TRAINING), number)
        tasks = config.family.sample_tasks(rng.fold(key, 0), 6, "train")
        other.update(run_trial(other, config.family, tasks, rng.fold(key, 1)), number / config.total_iterations)
    mine, its = agent.state_dict(), other.state_dict()
    assert all(torch.equal(mine[name], its[name]) for name in mine)


def test_robust_replay_takes_no_gradient_on_new_tasks_and_its_steps_count(monkeypatch: pytest.MonkeyPatch):
    config = read("rl2_wall_maze", [*SMALL, *POINT])
    agent = config.agent.build(config.family, 1, torch.device("cpu"))
    sampler = PLR(PLROptions(robust=True, score="regret", capacity=12, replay=0.5), agent, "train")
    seen, steps, learned = [], [0], []
    score, update = sampler.score, agent.update

    def spy(proposal: Proposal, trial) -> None:
        state = {name: value.clone() for name, value in agent.state_dict().items()}
        seen.append((proposal, state))
        steps[0] += int(sum(rollout.mask.sum() for rollout in trial))
        score(proposal, trial)

    monkeypatch.setattr(sampler, "score", spy)
    monkeypatch.setattr(agent, "update", lambda trial, progress: learned.append(trial) or update(trial, progress))
    iterate, done = Iteration(agent, config, torch.device("cpu"), sampler), Counters()
    metrics = []
    for _ in range(4):
        iterated = iterate(done)
        done, metrics = iterated.done, [*metrics, iterated.metrics]
    assert len(learned) == 4 and len(seen) > 4
    for (proposal, state), (_, after) in itertools.pairwise(seen):
        same = all(torch.equal(state[name], after[name]) for name in state)
        assert same != proposal.learn  # parameters change only by what was replayed
    assert done.env_steps == steps[0]
    scored = sum(each["tasks/scored"] for each in metrics)
    assert scored == len(seen) - 4


def test_the_antagonist_plays_the_same_tasks_and_its_steps_count(monkeypatch: pytest.MonkeyPatch):
    config = read("rl2_wall_maze", [*SMALL, *CART, "--task_sampler=paired"])
    agent = config.agent.build(config.family, 1, torch.device("cpu"))
    sampler = config.task_sampler.build(agent, "train")
    seen, learned, score, update = [], [], sampler.score, agent.update

    def spy(proposal: Proposal, trial) -> None:
        seen.append((proposal, trial))
        score(proposal, trial)

    monkeypatch.setattr(sampler, "score", spy)
    monkeypatch.setattr(agent, "update", lambda trial, progress: learned.append(trial) or update(trial, progress))
    iterate, done = Iteration(agent, config, torch.device("cpu"), sampler), Counters()
    for number in range(2):
        iterated = iterate(done)
        (its, theirs), (mine, own) = seen[-2:]
        assert len(seen) == 2 * number + 2 and its.player is sampler.opponents.antagonist and mine.player is None
        for tasks in (theirs[0].task, own[0].task):
            assert all(torch.equal(a, b) for a, b in zip(tasks, its.tasks))
        assert learned[-1] is own and not torch.equal(theirs[0].acted.log_prob[0], own[0].acted.log_prob[0])
        steps = [int(sum(rollout.mask.sum() for rollout in trial)) for trial in (theirs, own)]
        assert all(steps) and iterated.done.env_steps - done.env_steps == sum(steps)
        assert iterated.metrics["tasks/scored"] == 1.0 and "antagonist/policy" in iterated.metrics
        done = iterated.done


def test_a_skipped_iteration_leaves_the_sampler_as_it_was(tmp_path: Path):
    from metarl.training.faults.iterations import Skipping

    config = read("rl2_wall_maze", [*SMALL, *POINT, "--on_nan=skip", "--task_sampler=plr", *PLR_SMALL])
    agent = config.agent.build(config.family, 1, torch.device("cpu"))
    sampler = config.task_sampler.build(agent, "train")
    iterate, skipping = Iteration(agent, config, torch.device("cpu"), sampler), Skipping(agent, config, sampler)
    done = iterate(Counters()).done
    before = {name: value.clone() for name, value in sampler.state_dict().items()}
    skipping.keep()
    metrics = iterate(done).metrics
    assert not torch.equal(before["seen"], sampler.state_dict()["seen"]) or before["clock"] != sampler.buffer.clock
    skipping.judged(metrics | {"loss/policy": float("nan")}, None, lambda sentence: None)
    after = sampler.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "option"), [("robust PLR", "--task_sampler.score=regret"), ("PAIRED", "--task_sampler.regret=mean")]
)
def test_two_processes_are_one(name: str, option: str, tmp_path: Path):
    options = [*command(name, tmp_path / "one", 2), option]
    subprocess.run([sys.executable, "-m", "metarl.train", *options], check=True, capture_output=True)
    job = torchrun(2, *options, f"--run_dir={tmp_path / 'two'}")
    _, error = job.communicate(timeout=300)
    assert job.returncode == 0, error
    one, two = (saved(tmp_path / name) for name in ("one", "two"))
    assert one.counters.env_steps > 0 and one.sampler.keys() == two.sampler.keys()
    first, its = (logged(tmp_path / name)[0] for name in ("one", "two"))
    for tag in (tag for tag in first if tag.startswith(("tasks/", "train/", "env_steps"))):
        assert first[tag] == pytest.approx(its[tag], rel=1e-5), tag


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--task_sampler=PRL"], r"Unknown task_sampler: 'PRL'"),
        (["--task_sampler=sfl", "--task_sampler.capacity=3"], r"capacity"),
        (["--task_sampler=plr", "--task_sampler.replay=1.5"], r"replay must lie between 0 and 1, got 1.5"),
        (["--task_sampler.name=plr", "--task_sampler.score=value"], r"score"),
        (
            ["--task_sampler=plr", "--agent=PPO", "--agent.batch_size=60"],
            r"PPO draws its tasks itself, in its own loop",
        ),
        (["--task_sampler=sfl", "--family=CartPole"], r"CartPole does not say"),
        (["--task_sampler=paired", "--family=SparsePointRobot"], r"SparsePointRobot does not declare the space"),
        (["--task_sampler"], r"--task_sampler needs a value, one of fresh, plr"),
    ],
)
def test_mistakes_end_in_one_sentence(options: list[str], sentence: str, tmp_path: Path):
    with pytest.raises((ConfigError, ValueError), match=sentence):
        parsed = parse(["--config", "rl2_wall_maze", *SMALL, f"--run_dir={tmp_path / 'run'}", *options])
        loop.train(parsed, _silent(), lambda sentence: None)


def test_a_sampler_is_a_name_or_a_name_and_options(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text(
        "family: WallMaze\nagent: RL2\ntask_sampler:\n  name: PLR\n  capacity: 77\n  robust: true\n"
    )
    config = read(tmp_path / "mine.yaml")
    assert config.task_sampler == PLROptions(capacity=77, robust=True)
    assert read(tmp_path / "mine.yaml", ["--task_sampler.capacity=5"]).task_sampler.capacity == 5
    assert type(read(tmp_path / "mine.yaml", ["--task_sampler=sfl"]).task_sampler).__name__ == "SFLOptions"
    parsed = parse(["--config", str(tmp_path / "mine.yaml")])
    assert parsed.values["task_sampler"]["name"] == "plr" and parsed.values["task_sampler"]["staleness"] == 0.3
    (tmp_path / "again.yaml").write_text(parsed.text())
    assert read(tmp_path / "again.yaml").task_sampler == config.task_sampler


def test_python_takes_the_same_options(tmp_path: Path):
    small = {"total_iterations": 1, "eval_every": 0, "final_eval_tasks": 0, "run_dir": tmp_path / "run"}
    sampler = {"name": "plr", "score": "regret", "capacity": 9}
    agent = {"meta_batch_size": 4, "hidden_size": 8, "head_size": 0}
    run = metarl.run("rl2_wall_maze", task_sampler=sampler, agent=agent, **small)
    assert read(run.directory / "config.yaml").task_sampler == PLROptions(score="regret", capacity=9)


def test_a_checkpoint_of_another_sampler_is_refused(tmp_path: Path):
    run = tmp_path / "run"
    assert train.main(command("PLR", run, 2)) == 0
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("capacity: 12", "capacity: 3"))
    with pytest.raises(ConfigError, match=r"PLR cannot continue from it: it holds 6 tasks in a buffer of 3"):
        loop.train(parse([f"--resume={run}", "--total_iterations=3"]), _silent(), lambda sentence: None)
