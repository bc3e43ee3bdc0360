"""The program: it trains, shows, resumes exactly, stops when told to, and says what is wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_log import documented
from toy import TOY

from metarl import train
from metarl.evaluation.evaluator import evaluate
from metarl.fast.profiling import Profile, phase, record_function
from metarl.training import checkpoint, loop, run_checks

ROOT = Path(__file__).parents[2]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments of a small run; the current folder is a temporary one."""
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(TOY)
    return ["--config", "toy.yaml"]


EVALUATED = ["--eval_every", "3", "--final_eval_tasks", "30"]


def start(*args: str) -> subprocess.Popen[str]:
    """The program in a process of its own."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "metarl.train", "--allow=toy", *args]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + 240  # a busy machine
    while not condition():
        assert process.poll() is None and time.monotonic() < limit, process.communicate()
        time.sleep(0.02)


def lines(run_dir: str | Path) -> list[dict[str, float]]:
    path = Path(run_dir) / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def assert_same_run(a: str | Path, b: str | Path) -> None:
    """Parameters, optimiser and everything logged but times are equal, bit for bit."""
    (left, done), (right, done_too) = checkpoint.load_state(a), checkpoint.load_state(b)
    assert (done.iteration, done.env_steps) == (done_too.iteration, done_too.env_steps)
    assert left.keys() == right.keys()
    assert not [name for name in left if not torch.equal(left[name], right[name])]

    def timeless(run: str | Path) -> list[dict[str, float]]:
        return [{k: v for k, v in line.items() if not k.startswith(("time/", "seconds"))} for line in lines(run)]

    assert timeless(a) == timeless(b)


def test_a_profile_says_where_the_time_went(toy: list[str], capsys: pytest.CaptureFixture[str]):
    plain, profiled = [*toy, *EVALUATED, "--run_dir", "plain"], [*toy, *EVALUATED, "--run_dir", "run", "--profile"]
    assert train.main(plain) == 0 and train.main(profiled) == 0
    shown = capsys.readouterr().out
    for word in ("rollout", "advantage", "update", "evaluation", "logging", "other", "trace.json"):
        assert word in shown
    trace = json.loads(Path("run/trace.json").read_text())
    names = {event.get("name") for event in trace["traceEvents"]}
    assert {"metarl/rollout", "metarl/advantage", "metarl/update"} <= names
    assert not Path("plain/trace.json").exists()
    assert_same_run("plain", "run")


def test_the_parts_of_a_profile_add_up():
    recorded = Profile()
    with recorded.recording(torch.device("cpu")), record_function(phase("update")):
        with record_function(phase("advantage")):
            time.sleep(0.02)
        time.sleep(0.01)
    spent = recorded.seconds
    assert spent["advantage"] >= 0.02 and spent["update"] >= 0.01
    assert spent["advantage"] + spent["update"] <= spent["iteration"]
    assert recorded.table().row_count == 3


def test_a_run_leaves_everything_behind(toy: list[str], capsys: pytest.CaptureFixture[str]):
    assert train.main([*toy, *EVALUATED, "--run_dir", "run"]) == 0
    shown = capsys.readouterr().out
    for word in ("train", "test", "ood", "random", "optimum", "tensorboard --logdir run"):
        assert word in shown
    names = {str(path.relative_to("run")) for path in Path("run").rglob("*") if path.is_file()}
    results = {
        f"evaluation/{split}.{kind}" for split in ("train", "valid", "test", "ood") for kind in ("json", "csv", "png")
    }
    expected = (
        {"config.yaml", "command.txt", "versions.json", "metrics.jsonl", "checkpoint.safetensors"}
        | results
        | {"best.safetensors"}
    )
    assert names >= expected | {"evaluation/table.txt"} and not [name for name in names if "partial" in name]
    assert "--run_dir run" in Path("run/command.txt").read_text()
    assert [line["iteration"] for line in lines("run")] == [1, 2, 3, 4, 5, 6]
    assert lines("run")[-1]["env_steps"] == 6 * 16 * 6
    assert [line["iteration"] for line in lines("run") if "eval/valid/score" in line] == [3]
    assert not [tag for line in lines("run") for tag in line if "/" in tag and not documented(tag)]


def test_a_configuration_that_was_edited_between_two_starts_is_warned_of(
    toy: list[str], capsys: pytest.CaptureFixture[str]
):
    """By hand, in place of an option of --resume, which takes none that changes what was learned."""
    assert train.main([*toy, "--run_dir=run", "--quiet"]) == 0
    path = Path("run/config.yaml")

    def said_of(*edits: tuple[str, str]) -> str:
        for before, after in edits:
            assert before in path.read_text()
            path.write_text(path.read_text().replace(before, after))
        assert train.main(["--resume=run", "--quiet"]) == 0
        return capsys.readouterr().err

    assert said_of(("total_iterations: 6", "total_iterations: 7")) == "", "which --resume may change"
    edits = ("total_iterations: 7", "total_iterations: 8"), ("seed: 1", "seed: 2"), ("clip_coef: 0.2", "clip_coef: 0.3")
    assert said_of(*edits) == (
        "metarl train: warning: The run's config.yaml was edited since its last start (agent.clip_coef 0.2, now 0.3; "
        "seed 1, now 2): numbers will differ from those of an uninterrupted run.\n"
    )
    assert said_of(("total_iterations: 8", "total_iterations: 9")) == "", "it was said"


def test_the_event_file_has_the_tags(toy: list[str]):
    assert train.main([*toy, *EVALUATED, "--run_dir", "run"]) == 0
    found = EventAccumulator("run").Reload()
    scalars = set(found.Tags()["scalars"])
    assert {"train/return", "loss/policy", "time/steps_per_second", "eval/test/episode_01_low"} <= scalars
    assert not [tag for tag in scalars if not documented(tag)]
    assert [event.step for event in found.Scalars("train/return")] == [96 * i for i in range(1, 7)]
    assert [event.step for event in found.Scalars("eval/valid/score")] == [288, 576]
    curves = {f"eval/{split}/{kind}" for split in ("train", "valid", "test", "ood") for kind in ("curve", "steps")}
    pictures = {f"eval/{split}/{name}" for split in ("test", "ood") for name in ("tasks", "where")}
    assert set(found.Tags()["images"]) == curves | pictures, "and none of behaviour: the family has no render"
    texts = {f"{name}/text_summary" for name in ("config", "command", "versions", "runtime", "family")}
    assert texts <= set(found.Tags()["tensors"])


def test_the_written_config_repeats_the_run_and_another_seed_does_not(toy: list[str]):
    assert train.main([*toy, "--run_dir", "first"]) == 0
    assert train.main(["--config", "first/config.yaml", "--run_dir", "second"]) == 0
    assert_same_run("first", "second")
    assert train.main([*toy, "--run_dir", "third", "--seed", "2"]) == 0
    with pytest.raises(AssertionError):
        assert_same_run("first", "third")


def test_evaluating_and_saving_change_nothing(toy: list[str]):
    assert train.main([*toy, "--run_dir", "first", "--eval_every", "2", "--checkpoint_every", "1"]) == 0
    assert not Path("first/evaluation").exists(), "there was no evaluation at the end"
    assert train.main([*toy, "--run_dir", "second", "--checkpoint_every", "1000"]) == 0
    one, two = checkpoint.load_state("first")[0], checkpoint.load_state("second")[0]
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_best_on_valid_is_kept(toy: list[str]):
    """The iteration whose evaluation was the highest, though the last is another; a resume goes on from its score."""
    args = [*toy, "--eval_every", "1", "--total_iterations", "12", "--agent.lr", "0.05", "--run_dir", "run"]
    assert train.main(args) == 0
    scores = {line["iteration"]: line["eval/valid/score"] for line in lines("run")}
    best = max(scores, key=lambda iteration: scores[iteration])
    kept, counters = checkpoint.load_state("run", which="best")
    assert counters.iteration == counters.best_iteration == best and not [name for name in kept if "optimizer" in name]
    assert counters.best_score == pytest.approx(scores[best], rel=1e-6)
    last = checkpoint.load_state("run")[1]
    assert (last.iteration, last.best_iteration) == (12, best)
    agent = checkpoint.load("run", which="best")
    assert agent.trained == {"seed": 1, "iteration": best, "env_steps": best * 96}
    again = evaluate(agent, split="valid", tasks=20, repeats=1, step_curve=False)
    assert float(again.scores.mean()) == pytest.approx(scores[best], rel=1e-6)
    assert train.main(["--resume", "run", "--total_iterations", "13"]) == 0
    assert checkpoint.load_state("run")[1].best_score >= counters.best_score


def test_without_valid_there_is_no_best(toy: list[str]):
    assert train.main([*toy, "--eval_every", "1", "--eval_splits", "[test]", "--run_dir", "run"]) == 0
    assert not Path("run/best.safetensors").exists()
    with pytest.raises(ValueError, match="no best checkpoint, since it was not evaluated on 'valid'"):
        checkpoint.load("run", which="best")


def test_a_fixed_list_of_training_tasks(toy: list[str], tmp_path: Path):
    assert train.main([*toy, "--train_tasks", "2", "--run_dir", "run"]) == 0
    assert checkpoint.load("run").family.num_tasks("train") == 2
    assert train.main([*toy, "--train_tasks", "0", "--run_dir", "other"]) == 2


def test_the_default_run_dir_names_preset_and_seed(toy: list[str]):
    assert train.main([*toy, "--total_iterations", "1"]) == 0
    (run_dir,) = Path("runs").iterdir()
    assert run_dir.name.startswith("toy_1_")
    assert train.main(["--config", str(run_dir / "config.yaml"), "--seed", "2"]) == 0
    assert [path for path in Path("runs").iterdir() if path.name.startswith("rl2_guess_2_")]


@pytest.mark.parametrize("critic", ["history", "task", "task_and_time"])
@pytest.mark.parametrize("student", ["pretrained:dagger_gridnavi", "pretrained:rl2_gridnavi"])
def test_rl2_starts_with_the_policy_of_a_student_and_a_critic_of_its_own(
    student: str, critic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Also if the student's critic was told something else: it begins anew, with the scale of its returns."""
    monkeypatch.chdir(tmp_path)
    given = ["rl2_gridnavi", "--agent.meta_batch_size=8", f"--agent.critic={critic}", "--agent.aux_coef=0.1", "--quiet"]
    given += ["--final_eval_tasks=0", "--total_iterations=0"]
    assert train.main([*given, "--run_dir=runs/alone"]) == 0
    assert train.main([*given, "--run_dir=runs/second", f"--init_from={student}"]) == 0
    states = (checkpoint.load_state(checkpoint.find(each))[0] for each in (student, "runs/second", "runs/alone"))
    theirs, ours, fresh = states
    policy = [name for name in theirs if name.startswith("net.") and "critic" not in name]
    assert len(policy) > 5 and all(torch.equal(theirs[name], ours[name]) for name in policy)
    kept = student == "pretrained:rl2_gridnavi" and critic == "task"
    for name in (name for name in ours if "critic" in name or name.startswith("return_")):
        assert torch.equal(ours[name], (theirs if kept else fresh)[name]), name
    assert all(torch.equal(ours[name], fresh[name]) for name in fresh if "infer" in name)
    assert train.main([*given[:-1], "--total_iterations=1", "--run_dir=runs/third", f"--init_from={student}"]) == 0


@pytest.mark.parametrize("name", ["runs/first", "pretrained:rl2_gridnavi"])
def test_training_starts_from_another_agent(toy: list[str], name: str, capsys: pytest.CaptureFixture[str]):
    """With its parameters and the scales that belong to them; the optimiser and the counters begin anew."""
    if name.startswith("runs"):
        assert train.main([*toy, "--run_dir", name]) == 0
    else:
        toy = ["--config", "rl2_gridnavi", "--agent.meta_batch_size", "8", "--final_eval_tasks", "0", "--quiet"]
    assert train.main([*toy, "--run_dir", "runs/second", "--init_from", name, "--total_iterations", "0"]) == 0
    (first, _), (second, done) = checkpoint.load_state(checkpoint.find(name)), checkpoint.load_state("runs/second")
    learned = {key for key in first if not key.startswith("optimizer.") and key != "updates"}
    assert len(learned) > 5 and all(torch.equal(first[key], second[key]) for key in learned)
    assert int(second["updates"]) == done.iteration == 0 and not any(key.startswith("optimizer.") for key in second)
    assert train.main([*toy, "--run_dir", "runs/third", "--init_from", name, "--total_iterations", "1"]) == 0
    third, _ = checkpoint.load_state("runs/third")
    assert any(not torch.equal(first[key], third[key]) for key in learned)
    capsys.readouterr()
    assert train.main([*toy, "--init_from", name, "--agent.hidden_size", "7", "--run_dir", "runs/none"]) == 2
    error = capsys.readouterr().err
    assert "init_from must name an agent of the same kind and sizes" in error and not Path("runs/none").exists()
    assert train.main([*toy, "--init_from", "runs/nowhere"]) == 2
    assert "There is no run directory 'runs/nowhere'" in capsys.readouterr().err


def test_a_killed_run_resumes_as_if_nothing_had_happened(toy: list[str]):
    """kill -9 in the middle, at no particular moment; then the rest."""
    args = [*toy, "--total_iterations", "50", "--eval_every", "25"]
    process = start(*args, "--run_dir", "killed")
    wait_for(lambda: Path("killed/metrics.jsonl").exists() and len(lines("killed")) >= 9, process)
    process.kill()
    process.communicate()
    done = checkpoint.load_state("killed")[1].iteration
    assert 6 < done < 50
    assert train.main(["--resume", "killed"]) == 0
    assert train.main([*args, "--run_dir", "whole"]) == 0
    assert_same_run("killed", "whole")
    assert len(Path("killed/command.txt").read_text().splitlines()) == 2


def test_ctrl_c_saves_and_says_how_to_go_on(toy: list[str]):
    args = [*toy, "--total_iterations", "100000", "--checkpoint_every", "100000", "--run_dir", "run"]
    process = start(*args)
    wait_for(lambda: Path("run/metrics.jsonl").exists() and len(lines("run")) >= 3, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 130 and "Traceback" not in err
    assert "--resume run" in out
    done = checkpoint.load_state("run")[1].iteration
    assert done == len(lines("run")) >= 3
    assert train.main(["--resume", "run", "--total_iterations", str(done + 2)]) == 0
    assert checkpoint.load_state("run")[1].iteration == len(lines("run")) == done + 2


def test_a_run_directory_is_never_overwritten(toy: list[str], capsys: pytest.CaptureFixture[str]):
    assert train.main([*toy, "--run_dir", "run"]) == 0
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    capsys.readouterr()
    assert train.main([*toy, "--run_dir", "run", "--seed", "2"]) == 2
    assert "--resume run" in capsys.readouterr().err
    assert train.main(["--resume", "run", "--total_iterations", "2"]) == 2
    assert "must be at least 6" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["command.txt", "checkpoint.partial", "versions.json", "evaluation/test.json"])
def test_a_run_with_a_symbolic_link_is_refused(toy: list[str], name: str, capsys: pytest.CaptureFixture[str]):
    """A run directory from elsewhere could otherwise let a resume write into any file of the user's."""
    assert train.main([*toy, "--run_dir", "runs/run"]) == 0
    victim, link = Path("victim"), Path("runs/run") / name
    victim.write_text("mine")
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(victim.absolute())
    capsys.readouterr()
    assert train.main(["--resume", "runs/run", "--allow", "toy"]) == 2
    assert f"got a symbolic link: remove '{name}'" in capsys.readouterr().err and victim.read_text() == "mine"
    with pytest.raises(ValueError, match="symbolic link"):
        checkpoint.load("runs/run", allow=["toy"])


def test_an_agent_of_the_package_is_no_run_to_resume(capsys: pytest.CaptureFixture[str]):
    folder = checkpoint.PRETRAINED / "rl2_gridnavi"
    before = sorted(path.name for path in folder.iterdir())
    assert train.main(["--resume", str(folder)]) == 2
    assert "is a trained agent, not a run: start a run from it with --init_from" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_diverged_run_stops_with_a_sentence_and_keeps_its_checkpoint(
    toy: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert train.main([*toy, "--run_dir", "never", "--family.broken", "1"]) == 2
    assert "rewards of Guess.step must be finite" in capsys.readouterr().err and not Path("never").exists()
    monkeypatch.setattr(run_checks, "quick_check", lambda *_: [])  # as if they were too seldom for it
    assert train.main([*toy, "--run_dir", "rewards", "--family.broken", "1"]) == 3
    sentence = capsys.readouterr().err
    assert "train/return became nan" in sentence and "rewards of the family" in sentence, "not its own parameters"
    honest = loop.run_trial

    def poisoned(agent, family, tasks, key, first_task):
        if agent.updates == 4:
            next(iter(agent.net.parameters())).data.fill_(torch.nan)
        return honest(agent, family, tasks, key, first_task=first_task)

    monkeypatch.setattr(loop, "run_trial", poisoned)
    assert train.main([*toy, "--run_dir", "run"]) == 3
    sentence = capsys.readouterr().err
    assert "iteration 5" in sentence and "checkpoint" in sentence and "Traceback" not in sentence
    assert "own numbers" in sentence and "rewards" not in sentence
    state, counters = checkpoint.load_state("run")
    assert counters.iteration == 4 and all(value.isfinite().all() for value in state.values())


def test_mistakes_end_the_program_with_code_2_and_one_line(toy: list[str], capsys: pytest.CaptureFixture[str]):
    wrong = ("--agent.lrr 3", "--family Gues", "--train_split tset", "--agent.hidden_size 0", "--agent.memory gruu")
    for args in wrong:
        assert train.main([*toy, *args.split()]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    Path("file").write_text("")
    assert train.main([*toy, "--run_dir", "file/run"]) == 2
    if not torch.cuda.is_available():
        assert train.main([*toy, "--device", "cuda", "--run_dir", "never"]) == 2
        assert "no CUDA device" in capsys.readouterr().err and not Path("never").exists()
    assert not Path("runs").exists(), "nothing is left behind by a mistake"


def test_the_program_s_exit_code_reaches_the_shell(toy: list[str]):
    process = start("--config", "rl2_gridnavy")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 2 and not out
    assert len(err.splitlines()) == 1 and "Did you mean 'rl2_gridnavi'?" in err


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_picture_that_fails_ends_no_run(toy, capsys, seeds):
    Path("toy.yaml").write_text(TOY.replace("toy/Guess", "toy/NoDisplay").replace("total_iterations: 6", ""))
    few = ["--total_iterations", "1", "--final_eval_tasks", "20", "--quiet", "--run_dir", "run"]
    assert train.main([*toy, *few, *(["--seeds", str(seeds)] if seeds > 1 else [])]) == 0
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 * seeds, "for each run a line before it, from the family's contract, and one at its end"
    assert all("render (toy.py, line" in error for error in errors[::2])
    assert all("behaviour/strip could not be made (RuntimeError: no display)" in error for error in errors[1::2])
    folders = ["run"] if seeds == 1 else [f"run/seed_{seed}" for seed in range(1, seeds + 1)]
    assert all(lines(folder)[-1]["iteration"] == 1 for folder in folders)
    assert all((Path(folder) / "evaluation" / "table.txt").exists() for folder in folders)
