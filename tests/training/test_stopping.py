"""The ends of a run: signals at every moment, limits, and the exit codes that tell them apart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_train import EVALUATED, ROOT, assert_same_run, lines, start, wait_for
from toy import TOY

import metarl
from metarl import train
from metarl.cli import usage
from metarl.training import checkpoint, final_evaluation, loop
from metarl.training.config.errors import ConfigError
from metarl.training.stopping import AtOnce, Stop

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def without_nohup() -> Iterator[None]:
    """Let SIGHUP have its usual effect, also where the tests themselves were started by nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A temporary folder with a config file; afterwards every signal has the effect that it had."""
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(TOY)
    every = (*NUMBERS, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in every]
    yield
    assert [signal.getsignal(number) for number in every] == before


def sending(number: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which sends this process a signal when it is called."""

    def sends(*args: Any, **keywords: Any) -> Any:
        os.kill(os.getpid(), number)
        return function(*args, **keywords)

    return sends


def at(iteration: int, *numbers: int) -> Callable[[int, dict[str, float]], None]:
    """A callback that sends signals after an iteration."""

    def send(done: int, metrics: dict[str, float]) -> None:
        if done == iteration:
            for number in numbers:
                os.kill(os.getpid(), number)

    return send


def test_sigusr1_saves_and_goes_on():
    seen: list[int] = []

    def look(done: int, metrics: dict[str, float]) -> None:
        at(3, signal.SIGUSR1)(done, metrics)
        seen.append(checkpoint.load_state("run")[1].iteration if Path("run/checkpoint.safetensors").exists() else 0)

    run = metarl.run("toy.yaml", run_dir="run", checkpoint_every=100, on_iteration=look)
    assert seen == [0, 0, 0, 4, 4, 4] and run.counters.iteration == 6 and run.signal == 0
    metarl.run("toy.yaml", run_dir="whole")
    assert_same_run("run", "whole")


def test_every_checkpoint_comes_after_its_lines_are_on_the_disk(monkeypatch: pytest.MonkeyPatch):
    """Also one that a signal asked for, and the last one: no resume writes lines again that were before it."""
    synced, saved = set[tuple[int, int]](), []
    monkeypatch.setattr(os, "fsync", lambda number: synced.add((os.fstat(number).st_ino, os.fstat(number).st_size)))
    honest = checkpoint.save

    def save(run_dir: Path, agent: Any, counters: Any, *more: Any) -> Path:
        found = Path(run_dir, "metrics.jsonl").stat()
        saved.append((counters.iteration, (found.st_ino, found.st_size) in synced))
        return honest(run_dir, agent, counters, *more)

    monkeypatch.setattr(checkpoint, "save", save)
    metarl.run("toy.yaml", run_dir="run", checkpoint_every=4, total_iterations=5, on_iteration=at(2, signal.SIGUSR1))
    assert saved == [(3, True), (4, True), (5, True)]


def test_sighup_saves_and_ends_even_if_it_comes_twice():
    with pytest.raises(SystemExit) as ended:
        metarl.run("toy.yaml", run_dir="run", on_iteration=at(3, signal.SIGHUP, signal.SIGHUP, signal.SIGHUP))
    assert ended.value.code == 128 + signal.SIGHUP
    assert checkpoint.load_state("run")[1].iteration == 3 == len(lines("run"))


def test_signals_that_are_ignored_or_handled_by_others_stay_so():
    """As nohup ignores SIGHUP, and a job's own handler may take SIGUSR1."""
    taken: list[int] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.signal(signal.SIGUSR1, lambda n, _: taken.append(n))
    try:
        run = metarl.run("toy.yaml", run_dir="run", on_iteration=at(3, signal.SIGHUP, signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGHUP, before[0])
        signal.signal(signal.SIGUSR1, before[1])
    assert run.counters.iteration == 6 and taken == [signal.SIGUSR1]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("moment", ["evaluate", "pictures"])
def test_a_signal_in_the_evaluation_at_the_end_loses_nothing(
    number: int, moment: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with monkeypatch.context() as patch:
        patch.setattr(final_evaluation, moment, sending(number, getattr(final_evaluation, moment)))
        assert train.main(["toy.yaml", *EVALUATED, "--run_dir=run"]) == 128 + number
    said = capsys.readouterr()
    assert "Stopped after iteration 6; continue with: python -m metarl.train --resume run" in said.out and not said.err
    assert not Path("run/evaluation/table.txt").exists() and not Path("run/writer.lock").exists()
    assert train.main(["toy.yaml", *EVALUATED, "--run_dir=run", "--auto_resume"]) == 0
    assert Path("run/evaluation/table.txt").exists() and len(lines("run")) == 6
    assert "optimum" in capsys.readouterr().out


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("moment", ["check_run", "_build", "write_run_files"])
def test_a_signal_before_training_ends_in_a_sentence(
    number: int, moment: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with monkeypatch.context() as patch:
        patch.setattr(loop, moment, sending(number, getattr(loop, moment)))
        assert train.main(["toy.yaml", "--run_dir=run"]) == 128 + number
    said = capsys.readouterr()
    if moment == "write_run_files":  # the folder exists: what is in it can be resumed
        assert "Stopped after iteration 0" in said.out and not said.err
        assert train.main(["--resume=run"]) == 0 and len(lines("run")) == 6
    else:
        name = signal.Signals(number).name
        assert said.err == f"metarl train: stopped at once by {name}; what was saved is kept.\n"
        assert not Path("run").exists()


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_while_libraries_are_imported_ends_in_a_sentence(number: int):
    program = """
import os, sys
class Sends:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            os.kill(os.getpid(), int(sys.argv[1]))
sys.meta_path.insert(0, Sends())
from metarl.train import main
sys.exit(main(["toy.yaml", "--run_dir=run"]))
"""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, "-c", program, str(int(number))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 128 + number and not done.stdout and not Path("run").exists()
    assert done.stderr == f"metarl train: stopped at once by {number.name}; what was saved is kept.\n"


SITE = """
import os, signal, sys
class Sends:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["SEND_AT"]:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Sends())
"""
SCRIPT = "import sys\nfrom metarl.cli.main import main\nsys.exit(main())\n"
THEIRS = """
import os, signal
try:
    import metarl
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("theirs to handle")
"""


def interrupted(module: str, command: list[str]) -> subprocess.CompletedProcess[str]:
    """The result of a command in a shell, that gets Ctrl-C when it imports this module."""
    Path("sitecustomize.py").write_text(SITE)
    environment = os.environ | {"PYTHONPATH": f"{os.getcwd()}:{ROOT}", "SEND_AT": module}
    shell = ["sh", "-c", '"$0" "$@"; exit $?', sys.executable, *command]
    return subprocess.run(shell, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("module", ["numpy", "metarl.cli"])
@pytest.mark.parametrize("command", ["-m metarl.train toy.yaml", "-m metarl train toy.yaml", "bin/metarl envs"])
def test_ctrl_c_is_quiet_from_the_first_import_on(command: str, module: str):
    Path("bin").mkdir()
    Path("bin/metarl").write_text(SCRIPT)
    done = interrupted(module, command.split())
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, "", "")


@pytest.mark.parametrize("command", ["-m theirs", "theirs/__init__.py metarl", "-m theirs.metarl"])
def test_ctrl_c_in_another_program_stays_its_own(command: str):
    Path("theirs").mkdir()
    Path("theirs/__init__.py").write_text(THEIRS)
    for name in ("__main__", "metarl"):
        Path(f"theirs/{name}.py").touch()
    done = interrupted("nothing", command.split())
    assert (done.returncode, done.stdout, done.stderr) == (0, "theirs to handle\n", "")


def test_a_signal_that_an_import_swallowed_is_not_lost():
    with AtOnce() as program:
        with pytest.raises(KeyboardInterrupt):  # as the import would
            program(signal.SIGTERM, None)
        with Stop(print) as stop:
            assert stop.asked and stop.signal == signal.SIGTERM


def test_a_second_ctrl_c_ends_at_once():
    with pytest.raises(KeyboardInterrupt):
        metarl.run("toy.yaml", run_dir="run", checkpoint_every=2, on_iteration=at(3, signal.SIGINT, signal.SIGINT))
    assert checkpoint.load_state("run")[1].iteration == 2 and not Path("run/writer.lock").exists()


def test_a_thread_can_train():
    """Where Python allows no handlers."""
    thread = threading.Thread(target=lambda: metarl.run("toy.yaml", run_dir="run"))
    thread.start()
    thread.join()
    assert checkpoint.load_state("run")[1].iteration == 6


@pytest.mark.slow
def test_a_closed_terminal_saves():
    """Its output cannot be written any more, which ends nothing before the checkpoint is written."""
    import pty

    ours, theirs = pty.openpty()
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONUNBUFFERED": "1"}
    given = ["toy.yaml", "--allow=toy", "--total_iterations=100000", "--checkpoint_every=100000", "--run_dir=run"]
    script = "import fcntl, termios, sys; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from metarl.train import main; "
    process = subprocess.Popen(
        [sys.executable, "-c", f"{script}sys.exit(main({given}))"],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True, text=True,
    )  # fmt: skip
    os.close(theirs)
    wait_for(lambda: Path("run/metrics.jsonl").exists() and len(lines("run")) >= 3, process)
    os.close(ours)
    assert process.wait(timeout=240) == 128 + signal.SIGHUP
    assert checkpoint.load_state("run")[1].iteration == len(lines("run")) >= 3


@pytest.mark.parametrize("limit", [3 * 96, 2 * 96 + 1])
def test_training_ends_after_the_iteration_that_reaches_a_number_of_environment_steps(limit: int):
    run = metarl.run("toy.yaml", run_dir="run", max_env_steps=limit, final_eval_tasks=0)
    assert run.counters.iteration == len(lines("run")) == 3


def test_a_run_that_has_reached_its_environment_steps_is_done_and_goes_on_without_the_limit(
    capsys: pytest.CaptureFixture[str],
):
    option = "max_env_steps"
    given = ["toy.yaml", *EVALUATED, "--run_dir=run", f"--{option}={3 * 96}", "--auto_resume"]
    assert train.main(given) == 0
    assert f"Training has reached {option} after iteration 3" in capsys.readouterr().out
    assert Path("run/evaluation/table.txt").exists()
    before = Path("run/checkpoint.safetensors").stat().st_mtime_ns
    assert train.main(given) == 0 and "This run is done: run" in capsys.readouterr().out
    assert Path("run/checkpoint.safetensors").stat().st_mtime_ns == before
    assert train.main(["--resume=run", f"--{option}=null"]) == 0
    assert train.main(["toy.yaml", *EVALUATED, "--run_dir=whole", "--eval_every=3"]) == 0
    assert_same_run("run", "whole")


def test_training_ends_after_seconds_resumes_included():
    run = metarl.run("toy.yaml", total_iterations=100000, max_seconds=0.3, run_dir="run")
    first = run.counters
    assert first.seconds >= 0.3 and lines("run")[-2]["seconds"] <= 0.3  # as written, to three digits
    assert metarl.run(resume="run").counters == first, "resumed, it ends at once"
    longer = metarl.run(resume="run", max_seconds=0.6).counters
    assert longer.seconds >= 0.6 and longer.iteration > first.iteration
    assert metarl.run("toy.yaml", max_seconds=0, run_dir="none").counters.iteration == 0


@pytest.mark.parametrize("limit", ["-1", ".nan", "soon"])
def test_a_wrong_limit_is_a_mistake(limit: str):
    with pytest.raises(ConfigError, match="max_seconds must be"):
        metarl.run("toy.yaml", max_seconds=limit)
    assert not Path("runs").exists()


def test_a_crash_has_a_traceback_and_a_code_of_its_own():
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    program = "import sys, metarl.train; from metarl.training import loop; loop.check_run = None; "
    command = [sys.executable, "-c", program + "sys.exit(metarl.train.main(['toy.yaml', '--allow=toy']))"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_the_exit_codes_are_documented(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        train.main(["rl2_gridnavi", "--help"])
    for page in (usage.train(), capsys.readouterr().out, Path(ROOT / "docs/long_runs.md").read_text("utf-8")):
        page = " ".join(page.split())
        assert "3" in page and "diverged" in page and "128 + N" in page


def test_a_run_that_is_being_written_is_refused_until_its_process_is_dead(capsys: pytest.CaptureFixture[str]):
    given = ["toy.yaml", "--total_iterations=100000", "--checkpoint_every=2", "--run_dir=run"]
    process = start(*given)
    wait_for(lambda: Path("run/checkpoint.safetensors").exists(), process)
    for again in (["--resume=run"], given, [*given, "--auto_resume"]):
        assert train.main(again) == 2
        said = capsys.readouterr().err
        assert f"is being written by process {process.pid} on {os.uname().nodename} " in said and said.count("\n") == 1
    assert metarl.load("run").trained["iteration"] > 0, "reading needs no lock"
    process.kill()
    process.communicate()
    done = checkpoint.load_state("run")[1].iteration
    assert Path("run/writer.lock").exists()
    assert train.main(["--resume=run", f"--total_iterations={done + 1}"]) == 0
    assert len(lines("run")) == done + 1
