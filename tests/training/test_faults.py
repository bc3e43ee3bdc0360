"""Every fault that a run can meet, injected: it ends in one sentence, or is skipped, or is warned of."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wrong_families
from rich.console import Console
from tensorboard.summary.writer import record_writer
from torch.utils.tensorboard import SummaryWriter
from wrong_families import GRID, Faulty, Line

import metarl
from metarl import train
from metarl.agents import RL2Config
from metarl.core.checks import pattern_task
from metarl.core.errors import WrongResult
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.evaluator import evaluate
from metarl.interop.gym_env import GymEnv, GymVectorEnv
from metarl.report.console import make_console
from metarl.training import checkpoint, loop, run_checks
from metarl.training.config.errors import ConfigError
from metarl.training.config.line import read_line
from metarl.training.config.parsing import Parsed, parse
from metarl.training.divergence import Diverged
from metarl.training.faults.iterations import IN_A_ROW, Skipping

ROOT = Path(__file__).parents[2]

AGENTS = {
    "RL2": ["--agent=RL2", "--agent.hidden_size=4", "--agent.meta_batch_size=4", "--agent.update_epochs=1",
            "--agent.num_minibatches=1"],
    "MAML": ["--agent=MAML", "--agent.meta_batch_size=4", "--agent.fast_batch_size=3"],
    "RecurrentSAC": ["--agent=RecurrentSAC", "--agent.hidden_size=4", "--agent.meta_batch_size=4",
                     "--agent.updates_per_iteration=1", "--agent.learning_starts=0", "--agent.batch_size=4"],
    "PEARL": ["--agent=PEARL", "--agent.hidden_sizes=[4]", "--agent.encoder_sizes=[4]", "--agent.meta_batch_size=4",
              "--agent.updates_per_iteration=1", "--agent.learning_starts=0", "--agent.batch_size=4"],
    "PPO": ["--agent=PPO", "--agent.meta_batch_size=4", "--agent.batch_size=20", "--agent.update_epochs=1"],
}  # fmt: skip

SMALL = [
    "--allow=wrong_families", "--final_eval_tasks=0", "--eval_every=0", "--num_threads=1", "--device=cpu",
    "--run_dir=run", "--quiet",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    Faulty.armed = None


def command(agent: str, *more: str, family: str = "Line", iterations: int = 3) -> list[str]:
    return [*AGENTS[agent], f"--family=wrong/{family}-v0", f"--total_iterations={iterations}", *SMALL, *more]


def faulty(agent: str, part: str, way: str, *more: str) -> list[str]:
    return command(agent, f"--family.part={part}", f"--family.way={way}", *more, family="Faulty", iterations=2)


# ---- A family's wrong results ---------------------------------------------------------------------------------------


def good_calls(part: str) -> int:
    """How many calls are good before the fault, so that it happens in the middle of an episode, or of a trial."""
    return {"reset": 2, "task": 1}.get(part, 7)


def trained(agent: str, part: str, way: str) -> None:
    """Train with a fault that begins after the checks of the start. Raises what the program would print or raise."""
    honest = loop.check_run

    def checked(*given: Any) -> None:
        honest(*given)
        pattern_task(given[0].config.family)  # a draw that is made once, wherever it is first asked for
        Faulty.armed = good_calls(part)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "check_run", checked)
        parsed = loop_parsed(faulty(agent, part, way))
        loop.train(parsed, quiet_console(), lambda sentence: None)


def loop_parsed(args: list[str]) -> Parsed:
    return parse(read_line(args))


def quiet_console() -> Console:
    return make_console(True)


def evaluated(part: str, way: str) -> None:
    family = metarl.make("wrong/Faulty-v0", part=part, way=way)
    agent = RL2Config(hidden_size=4).build(family, 0, torch.device("cpu"))
    Faulty.armed = {"reset": 2, "task": 0}.get(part, 7)
    evaluate(agent, family, "test", tasks=4, repeats=1)


def played(part: str, way: str) -> None:
    """One environment: the only row of a batch of one is all rows."""
    env = GymEnv(metarl.make("wrong/Faulty-v0", part=part, way=way))
    Faulty.armed = good_calls(part)
    for episode in range(4):
        env.reset(seed=0 if episode == 0 else None)
        for _ in range(5):
            env.step(1)


def played_side_by_side(part: str, way: str) -> None:
    env = GymVectorEnv(metarl.make("wrong/Faulty-v0", part=part, way=way), 4)
    Faulty.armed = good_calls(part)
    env.reset(seed=0)
    for _ in range(24):
        env.step([1] * 4)


WHERE: dict[str, Callable[[str, str], None]] = {
    "RL2": lambda part, way: trained("RL2", part, way),
    "MAML": lambda part, way: trained("MAML", part, way),
    "PPO": lambda part, way: trained("PPO", part, way),
    "evaluate": evaluated,
    "GymEnv": played,
    "GymVectorEnv": played_side_by_side,
}
METHODS = ("Faulty.step", "Faulty.observe", "Faulty.reset", "Faulty.draw_tasks")
NOT_FINITE = ("nan", "inf")


def named(where: str, part: str, way: str) -> None:
    """A fault ends in words about the family: its method, and where a row is at fault the step and the task."""
    training = where in AGENTS
    if way in NOT_FINITE:
        expected: tuple[type[Exception], ...] = (Diverged,)
    else:
        expected = (RuntimeError,) if way == "raises" else (ConfigError, WrongResult)
    with pytest.raises(expected) as caught:
        WHERE[where](part, way)
    said = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert any(method in said for method in METHODS), said
    if training:
        assert "iteration" in said and "'train'" in said
    if training and way != "raises":
        assert "no checkpoint yet" in said or "is kept in" in said
    if way == "raises":
        assert "the motor is stuck" in said and part.replace("task", "draw_tasks") in said
    elif part != "task":
        assert "step " in said, said
    if way in NOT_FINITE or (way == "raises" and part != "task"):
        assert "row " in said and "Goal(goal=[" in said, "which task"


def is_a_fault(where: str, way: str) -> bool:
    if way in NOT_FINITE:
        return where in AGENTS  # elsewhere a number that is not finite is the user's to see
    return not (where == "GymEnv" and way == "one row")  # its one row is all of them


CASES = [(where, part, way) for part, way in GRID for where in WHERE if is_a_fault(where, way)]
SOME = [case for number, case in enumerate(CASES) if number % 7 == 0]
"""Every seventh: each fault and each place comes up, in a tenth of the time."""


@pytest.mark.parametrize(("where", "part", "way"), SOME)
def test_a_wrong_result_in_the_middle_is_named(where: str, part: str, way: str):
    named(where, part, way)


@pytest.mark.slow
@pytest.mark.parametrize(("where", "part", "way"), [case for case in CASES if case not in SOME])
def test_every_wrong_result_in_the_middle_is_named(where: str, part: str, way: str):
    named(where, part, way)


@pytest.mark.parametrize("part", sorted({part for part, _ in GRID}))
def test_a_wrong_result_at_the_start_is_refused_before_training(part: str, capsys: pytest.CaptureFixture[str]):
    for way in [way for each, way in GRID if each == part]:
        Faulty.armed = 0
        assert train.main(faulty("RL2", part, way)) == 2
        sentence = capsys.readouterr().err
        assert "Faulty" in sentence and len(sentence.splitlines()) == 1 and not Path("run").exists()


def test_a_row_at_fault_is_found():
    """Only the task whose goal is the largest makes the step fail."""

    class Rare(Line):
        def step(self, task, state, action, key):
            if bool((task.goal > 4.9).any()):
                raise RuntimeError("too far")
            return super().step(task, state, action, key)

    family = Rare()
    agent = RL2Config(hidden_size=4).build(family, 0, torch.device("cpu"))
    goals = torch.tensor([[1.0], [2.0], [3.0], [4.95], [0.5]])
    with pytest.raises(RuntimeError, match="too far") as caught:
        evaluate(agent, family, tasks=wrong_families.Goal(goals), repeats=1)
    assert any("Rare.step, step 1, first in row 3 of 5: Goal(goal=[4.95])" in note for note in caught.value.__notes__)
    frames = [entry.name for entry in caught.traceback]
    assert "step" in frames, "its author needs the traceback"


def test_a_program_prints_one_sentence_for_a_wrong_result(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    honest = loop.check_run
    monkeypatch.setattr(loop, "check_run", lambda *given: (honest(*given), setattr(Faulty, "armed", 7)))
    assert train.main(faulty("RL2", "reward", "double")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "rewards of Faulty.step must be float32 of shape (B,), got float64" in line
    assert "step 8, first in row 0 of 4: Goal(goal=[" in line and "iteration 1 on 'train'" in line


# ---- Numbers that are not finite ------------------------------------------------------------------------------------


def spoiling(first: int, last: int) -> Callable[[int, dict[str, float]], None]:
    """Rewards are nan in the iterations `first` to `last`."""

    def after(iteration: int, metrics: dict[str, float]) -> None:
        Faulty.armed = 0 if first <= iteration + 1 <= last else None

    return after


def run(agent: str, *more: str, on_iteration: Callable[[int, dict[str, float]], Any] | None = None) -> Any:
    args = faulty(agent, "reward", "nan", "--checkpoint_every=1", *more)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        parsed = loop_parsed(args)
        ended = loop.train(
            parsed, quiet_console(), lambda sentence: warnings.warn(sentence, stacklevel=2), on_iteration
        )
    return ended, [str(warning.message) for warning in said]


def records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("agent", AGENTS)
def test_nan_stops_with_the_step_the_row_and_the_last_good_checkpoint(agent: str):
    with pytest.raises(Diverged) as caught:
        run(agent, "--total_iterations=4", on_iteration=spoiling(3, 4))
    sentence = str(caught.value)
    assert "iteration 3" in sentence and "split 'train'" in sentence
    assert "first the reward of Faulty.step, step 1, row 1 of" in sentence and "Goal(goal=[" in sentence
    assert "The checkpoint before it is kept in run/checkpoint.safetensors" in sentence
    state, counters = checkpoint.load_state("run")
    assert counters.iteration == 2 and all(bool(value.isfinite().all()) for value in state.values())


@pytest.mark.parametrize("agent", AGENTS)
def test_skip_leaves_the_agent_as_it_was_and_goes_on(agent: str):
    states: list[dict[str, torch.Tensor]] = []
    spoil = spoiling(2, 2)

    def after(iteration: int, metrics: dict[str, float]) -> None:
        states.append(checkpoint.load_state("run")[0])
        spoil(iteration, metrics)

    ended, said = run(agent, "--on_nan=skip", "--total_iterations=4", on_iteration=after)
    assert ended.counters.iteration == 4
    before, skipped, later, _ = states
    names = [name for name in before if agent != "PPO" or name != "updates"]  # addresses PPO's own randomness
    assert all(torch.equal(before[name], skipped[name]) for name in names)
    assert any(not torch.equal(skipped[name], later[name]) for name in names), "it learns again"
    assert [record["train/skipped"] for record in records()] == [0, 1, 1, 1]
    assert all(value is not None for record in records() for value in record.values()), "no nan in the log"
    (sentence,) = [each for each in said if "skipped" in each]
    assert "became nan" in sentence and "Faulty.step, step 1, row 1 of" in sentence


def test_skipping_again_and_again_stops():
    with pytest.raises(Diverged, match=f"{IN_A_ROW} iterations were skipped before it"):
        run("RL2", "--on_nan=skip", "--total_iterations=40", on_iteration=spoiling(3, 40))
    assert checkpoint.load_state("run")[1].iteration == 2 + IN_A_ROW


def test_stop_copies_nothing():
    class NoState:
        def state_dict(self) -> dict[str, torch.Tensor]:
            raise AssertionError("the state was copied")

    skipping = Skipping(NoState(), loop_parsed(command("RL2")).config, NoState())  # type: ignore[arg-type]
    skipping.keep()
    metrics = {"train/return": np.nan}
    skipping.judged(metrics, None, lambda sentence: None)
    assert metrics.keys() == {"train/return"}


def test_on_nan_is_stop_or_skip(capsys: pytest.CaptureFixture[str]):
    assert train.main(command("RL2", "--on_nan=skipp")) == 2
    assert "Did you mean 'skip'?" in capsys.readouterr().err


@pytest.mark.parametrize("agent", AGENTS)
def test_a_gradient_that_is_nan_reaches_no_checkpoint(
    agent: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    honest = loop._build

    def built(config: Any, device: torch.device) -> Any:
        made = honest(config, device)
        net = made.model.policy if agent == "PPO" else made.net
        for parameter in filter(lambda p: p.requires_grad, net.parameters()):
            parameter.register_hook(lambda grad: grad * (torch.nan if made.updates >= 2 else 1.0))
        return made

    monkeypatch.setattr(loop, "_build", built)
    assert train.main(command(agent, "--checkpoint_every=1", iterations=5)) == 3
    assert "Training stopped in iteration 3" in capsys.readouterr().err
    state, counters = checkpoint.load_state("run")
    assert counters.iteration == 2 and all(bool(value.isfinite().all()) for value in state.values())


def test_an_evaluation_that_is_not_finite_is_warned_of_once(capsys: pytest.CaptureFixture[str]):
    more = ["--eval_every=1", "--eval_splits=[test]", "--eval_tasks=5"]
    assert train.main([*command("RL2", family="NotANumber"), *more]) == 0
    errors = [line for line in capsys.readouterr().err.splitlines() if "evaluation on 'test'" in line]
    assert len(errors) == 1 and "on 5 of 5 tasks, first in episode 1 of task 0 (goal=[nan])" in errors[0]


def test_a_score_that_is_not_finite_is_never_the_best(monkeypatch: pytest.MonkeyPatch):
    scores = iter([np.nan, 1.0, np.nan, 0.5])
    monkeypatch.setattr(AdaptationCurve, "scores", property(lambda self: np.full(3, next(scores))))
    monkeypatch.setattr(loop.Logger, "iteration", lambda self, done, metrics, curves: metrics)
    assert train.main(command("RL2", "--eval_every=1", "--eval_tasks=3", iterations=4)[:-1]) == 0
    assert checkpoint.load_state("run", which="best")[1].best_iteration == 2


# ---- Memory ---------------------------------------------------------------------------------------------------------

EXHAUSTED = {
    "GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    "CPU": RuntimeError("[enforce fail at alloc_cpu.cpp:119] . DefaultCPUAllocator: can't allocate memory: you tried"),
    "Python": MemoryError(),
}


@pytest.mark.parametrize("kind", EXHAUSTED)
@pytest.mark.parametrize("agent", AGENTS)
def test_exhausted_memory_names_what_needs_less(
    agent: str, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def exhausted(*_: Any, **__: Any) -> None:
        raise EXHAUSTED[kind]

    if agent == "PPO":
        monkeypatch.setattr("stable_baselines3.PPO.learn", exhausted)
    else:
        monkeypatch.setattr(loop, "run_trial", exhausted)
    assert train.main(command(agent)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "emory is exhausted" in line and "agent.meta_batch_size (now 4)" in line and "eval_tasks" in line
    assert ("agent.num_minibatches" in line and "agent.chunk_length" in line) == (agent == "RL2")


# ---- Files ----------------------------------------------------------------------------------------------------------


def failing_from(iteration: int, number: int) -> Callable[..., Any]:
    """A `checkpoint.save` whose disk is full, or may not be written to, from an iteration on."""
    honest = checkpoint.save

    def save(run_dir: Path, agent: Any, done: Any, keep: int, sampler: Any) -> Path:
        if done.iteration >= iteration:
            raise OSError(number, os.strerror(number), str(Path(run_dir) / "checkpoint.partial"))
        return honest(run_dir, agent, done, keep, sampler)

    return save


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "Free space on the disk of 'run'"), (errno.EDQUOT, "or raise the quota"),
     (errno.EROFS, "Make 'run' writable"), (errno.EACCES, "Make 'run' writable")],
)  # fmt: skip
def test_a_checkpoint_that_cannot_be_written_ends_the_run(
    number: int, remedy: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", failing_from(3, number))
        assert train.main(command("RL2", "--checkpoint_every=1", iterations=5)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'run/checkpoint.partial'" in line and remedy in line and "continue from the last checkpoint with: " in line
    assert line.endswith("with: python -m metarl.train --resume run --allow wrong_families")
    assert checkpoint.load_state("run")[1].iteration == 2
    assert train.main(["--resume=run", "--allow=wrong_families"]) == 0
    assert checkpoint.load_state("run")[1].iteration == 5


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from metarl import train
sys.exit(train.main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
def test_a_real_limit_of_the_size_of_files():
    """metrics.jsonl grows until no more of it can be written."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    args = command("RL2", "--checkpoint_every=20", iterations=2000)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "100000", *args], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and "--resume run" in done.stderr
    assert "Free space on the disk of 'run'" in done.stderr
    assert checkpoint.load_state("run")[1].iteration >= 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no such device")
@pytest.mark.parametrize("streams", [">/dev/full", ">/dev/full 2>&1"])
def test_a_full_disk_behind_the_output_ends_no_run(streams: str):
    """A job's own log, as in ``metarl train … > log 2>&1``."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    loud = [word for word in command("RL2") if word != "--quiet"]
    shell = ["sh", "-c", f'"$0" "$@" {streams}', sys.executable, "-m", "metarl.train", *loud]
    done = subprocess.run(shell, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.count("\n") == ("2>" not in streams), done.stderr
    assert "standard output can no longer be written" in done.stderr or "2>" in streams
    assert checkpoint.load_state("run")[1].iteration == 3


@pytest.mark.parametrize("agent", ["RL2", "PPO"])
def test_a_run_directory_that_is_removed_ends_the_run(agent: str):
    def after(iteration: int, metrics: dict[str, float]) -> None:
        if iteration == 2:
            shutil.rmtree("run")

    with pytest.raises(ConfigError, match=r"'run'.*removed during the run: start the run again") as caught:
        loop.train(loop_parsed(command(agent, "--checkpoint_every=1", iterations=6)), quiet_console(), print, after)
    assert not Path("run").exists() and "iteration" not in str(caught.value.__cause__)


# ---- Loggers and pictures -------------------------------------------------------------------------------------------


def test_a_logger_that_fails_ends_no_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def broken(self: Any, *_: Any, **__: Any) -> None:
        raise RuntimeError("no such host")

    monkeypatch.setattr(SummaryWriter, "_get_file_writer", broken)
    monkeypatch.setattr(SummaryWriter, "add_text", lambda *_: None)
    assert train.main(command("RL2")) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "TensorBoard's file can no longer be written (RuntimeError: no such host)" in line
    assert len(records()) == 3 and checkpoint.load_state("run")[1].iteration == 3


def test_a_disk_that_is_full_for_tensorboard_ends_no_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Its thread fails, and writes no traceback."""
    honest, written = record_writer.RecordWriter.write, []

    def full(self: Any, data: bytes) -> None:
        written.append(len(data))
        if len(written) > 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        honest(self, data)

    monkeypatch.setattr(record_writer.RecordWriter, "write", full)
    assert train.main(command("RL2", iterations=20)) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left on device" in line and "metrics.jsonl" in line and len(records()) == 20


def test_a_figure_that_cannot_be_drawn_ends_no_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def broken(self: Any, *_: Any, **__: Any) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr(AdaptationCurve, "plot", broken)
    more = ["--final_eval_tasks=6", "--eval_every=2", "--eval_tasks=3"]
    assert train.main([*command("RL2"), *more]) == 0
    errors = capsys.readouterr().err.splitlines()
    assert errors and all("could not be drawn (RuntimeError: no fonts)" in line for line in errors)
    assert Path("run/evaluation/test.json").exists() and Path("run/evaluation/table.txt").exists()


def test_a_family_s_own_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_checks, "quick_check", lambda *_: [])
    with pytest.raises(RuntimeError) as caught:
        train.main(command("RL2", family="Bug"))
    assert any("Bug.step, step 1" in note for note in caught.value.__notes__)
    assert any("iteration 1 on 'train'" in note for note in caught.value.__notes__)
