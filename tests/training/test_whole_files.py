"""Every file that a program writes is whole or not there, whatever fails, and whenever it is killed."""

from __future__ import annotations

import builtins
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from toy import write_config

import metarl
from metarl.agents import PPOConfig
from metarl.envs import Navigation2D
from metarl.evaluation import files
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.evaluator import evaluate
from metarl.evaluation.files import partial_name, remove_partial, replace_file, replacing
from metarl.report.comparison import Comparison
from metarl.report.suite import Suite
from metarl.report.video import save_video
from metarl.training import checkpoint, run_folder, seeds
from metarl.training.checkpoint import Counters
from metarl.training.config import parsing as config


def agent_of(folder: Path, seed: int = 1) -> Any:
    read = config.read(folder / "config.yaml")
    return read.agent.build(read.family, seed, torch.device("cpu"))


def curve_of(folder: Path, tasks: int) -> AdaptationCurve:
    agent = agent_of(folder)
    return evaluate(agent, agent.family, tasks=tasks)


def write_checkpoint(folder: Path, version: int) -> None:
    checkpoint.save(folder, agent_of(folder, seed=version), Counters(4 + version), keep=2)


def write_best(folder: Path, version: int) -> None:
    checkpoint.save_best(folder, agent_of(folder, seed=version), Counters(4 + version))


def write_model(folder: Path, version: int) -> None:
    ppo = PPOConfig(meta_batch_size=2, num_steps=32).build(Navigation2D(), version, torch.device("cpu"))
    checkpoint.save(folder, ppo, Counters(version))


def write_run_files(folder: Path, version: int) -> None:
    parsed = config.parse(["--resume", str(folder), "--total_iterations", str(10 + version)])
    run_folder.write_run_files(folder, parsed)


def write_curve(folder: Path, version: int) -> None:
    curve_of(folder, 4 + version).save(folder / "evaluation" / "test")


def write_joined(folder: Path, version: int) -> None:
    for each in (1, 2) if version == 1 else ():  # both are there before anything fails
        curve_of(folder, 4 + each).save(folder / f"seed_{each}" / "evaluation" / "test")
    seeds.join([folder / f"seed_{version}"], folder / "joined", ["test"], Console(quiet=True, width=80))


def write_comparison(folder: Path, version: int) -> None:
    curve = curve_of(folder, 4 + version)
    Comparison({"a": {"test": curve}, "b": {"test": curve}}, {"a": "1 M steps"}).save(folder / "comparison")


def write_suite(folder: Path, version: int) -> None:
    curve = curve_of(folder, 4 + version)
    Suite({"first": {"a": curve}, "second": {"a": curve}}).save(folder / "suite")


def write_video(folder: Path, version: int) -> None:
    noise = np.random.default_rng(version).integers(0, 255, (3, 16, 16, 3), dtype=np.uint8)
    save_video([Image.fromarray(each) for each in noise], folder / "trial.gif")


def write_trained(folder: Path, version: int) -> None:
    for each in (1, 2) if version == 1 else ():
        run = folder / f"run_{each}"
        run.mkdir()
        write_config(run)
        write_checkpoint(run, each)
        write_curve(run, each)
    checkpoint.export_pretrained(folder / f"run_{version}", "toy", folder / "package")


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "checkpoint": write_checkpoint,
    "best checkpoint": write_best,
    "model of stable-baselines3": write_model,
    "configuration, command and versions": write_run_files,
    "curve": write_curve,
    "curve of several seeds with a table": write_joined,
    "comparison": write_comparison,
    "suite": write_suite,
    "film": write_video,
    "agent of the package": write_trained,
}


class Killed(BaseException):
    """What stands for the end of the process: nobody cleans up after it."""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def visible(folder: Path) -> dict[str, bytes]:
    """The files of a folder without those that are being written."""
    parts = {name: Path(name).parts for name in contents(folder)}
    hidden = {name for name, of in parts.items() if any(files.PARTIAL.fullmatch(part) for part in of)}
    return {name: content for name, content in contents(folder).items() if name not in hidden}


def fail_in_write(monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException) -> list[str]:
    """Let the write to file `number` stop after half of its bytes; returns the names of the files begun so far."""
    begun: list[str] = []

    def opened(path: Any, mode: str) -> Any:
        file = builtins.open(path, mode)  # noqa: SIM115  (`replacing` closes it)
        begun.append(Path(path).name)
        if len(begun) == number:
            file.write = _half(file, file.write, error)  # type: ignore[method-assign]
        return file

    monkeypatch.setattr(files, "open", opened, raising=False)
    return begun


def _half(file: Any, write: Callable[[bytes], int], error: BaseException) -> Callable[[bytes], int]:
    def half(data: bytes) -> int:
        write(bytes(data)[: len(data) // 2])
        file.flush()
        raise error

    return half


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory, in a world in which no time passes."""
    monkeypatch.setattr(time, "strftime", lambda _: "2026-01-31 12:00:00")
    (tmp_path / "run").mkdir()
    write_config(tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("how", ["failure", "kill"])
@pytest.mark.parametrize("kind", WRITERS)
def test_every_file_is_the_one_before_or_the_one_after(
    kind: str, how: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write = WRITERS[kind]
    write(folder, 1)
    before = visible(folder)
    for number in range(1, 30):
        with monkeypatch.context() as patch:
            error = OSError(28, "No space left on device") if how == "failure" else Killed()
            begun = fail_in_write(patch, number, error)
            if how == "kill":
                patch.setattr(Path, "unlink", lambda _, missing_ok=False: None)
                patch.setattr("shutil.rmtree", lambda *_, **__: None)
            try:
                write(folder, 2)
            except (OSError, Killed) as caught:
                assert how == "kill" or ("No space" in str(caught) and ".partial" not in str(caught))
            else:
                assert len(begun) < number
                break
        interrupted = visible(folder)
        assert contents(folder).keys() == interrupted.keys() or how == "kill", "a failure leaves nothing"
        remove_partial(folder)
        assert contents(folder) == interrupted
        for name, content in interrupted.items():
            assert content and (content == before.get(name) or not_torn(folder / name)), name
    else:
        raise AssertionError("it never ended")
    assert number > 1 or kind == "film"


def not_torn(path: Path) -> bool:
    """Tell whether a file reads from its first byte to its last."""
    if path.suffix == ".zip":
        return zipfile.ZipFile(path).testzip() is None
    if path.suffix in (".png", ".gif"):
        with Image.open(path) as image:
            image.load()
        return path.read_bytes().endswith((b"IEND\xaeB`\x82", b";"))
    if path.suffix == ".safetensors":
        checkpoint.state_file.read(path)
    elif path.suffix == ".json":
        files.read_json(path)
    else:
        assert path.read_bytes().endswith(b"\n")
    return True


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), Killed()], ids=["failure", "kill"])
def test_what_an_agent_writes_for_another_library_is_replaced_as_a_whole(
    error: BaseException, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    agent = PPOConfig(meta_batch_size=2, num_steps=32).build(Navigation2D(), 1, torch.device("cpu"))
    checkpoint.save(folder, agent, Counters(1))
    before = contents(folder)

    def half(into: Path) -> None:
        (into / "stable_baselines3.zip").write_bytes(b"PK half")
        raise error

    monkeypatch.setattr(type(agent), "export", lambda _, into: half(into))
    if isinstance(error, Killed):
        monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    with pytest.raises((OSError, Killed)):
        checkpoint.save(folder, agent, Counters(2))
    monkeypatch.undo()
    assert visible(folder) == before and (contents(folder) == before) == isinstance(error, OSError)
    remove_partial(folder)
    assert contents(folder) == before


def test_a_failed_rename_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("before")

    def fail(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(PermissionError) as caught:
        replace_file(tmp_path / "file", "after")
    assert caught.value.filename == str(tmp_path / "file")
    assert contents(tmp_path) == {"file": b"before"}


def test_a_link_is_replaced_and_not_followed(tmp_path: Path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "file").symlink_to(tmp_path / "victim")
    replace_file(tmp_path / "file", "new")
    assert (tmp_path / "victim").read_text() == "mine" and not (tmp_path / "file").is_symlink()


def test_a_new_file_never_replaces_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    replace_file(tmp_path / "file", "first", new=True)
    for links in (True, False):
        if not links:  # as on some file systems

            def no_links(*_: Any) -> None:
                raise OSError(95, "Operation not supported")

            monkeypatch.setattr("os.link", no_links)
        with pytest.raises(FileExistsError) as caught:
            replace_file(tmp_path / "file", "second", new=True)
        assert caught.value.filename == str(tmp_path / "file")
        replace_file(tmp_path / f"other_{links}", "first", new=True)
    assert contents(tmp_path) == {"file": b"first", "other_True": b"first", "other_False": b"first"}


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path):
    with replacing(tmp_path / "file") as first, replacing(tmp_path / "file") as second:
        first.write(b"first")
        second.write(b"second")
    assert contents(tmp_path) == {"file": b"first"}, "the one that ended last"


def test_other_users_may_read_what_they_could_read_before(tmp_path: Path):
    (tmp_path / "plain").write_text("")
    replace_file(tmp_path / "file", "")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_only_what_is_being_written_is_removed(tmp_path: Path):
    names = (".hidden", ".x.partial", "x.0123abcd.partial", ".x.0123abcd.partial.y.z", "sub")
    for name in names[:-1]:
        (tmp_path / name).write_text("")
    (tmp_path / "sub").mkdir()
    for name in ("checkpoint.safetensors", "command.txt", "metrics.jsonl", "file"):
        partial_name(tmp_path / "sub" / name).write_text("half")
    partial_name(tmp_path / "export").mkdir()
    remove_partial(tmp_path)
    assert {path.name for path in tmp_path.rglob("*")} == {*names}


# A configuration that is cut off ------------------------------------------------------------------------------------


def check_cuts(folder: Path, whole: str, step: int) -> dict[str, int]:
    """Cut off a run's config.yaml at every `step`-th byte; returns how many were refused, and read as they were."""
    path, found = folder / "config.yaml", {"refused": 0, "equal": 0}
    path.write_text(whole)
    values = config.parse(["--config", str(path)]).values
    for length in range(0, len(whole), step):
        path.write_text(whole[:length])
        try:
            read = config.parse(["--config", str(path)]).values
        except config.ConfigError as error:
            assert len(str(error).replace(str(folder), "")) < 300 and "\n" not in str(error)
            found["refused"] += 1
        else:
            assert read == values, whole[:length][-60:]
            found["equal"] += 1
    return found


def of_earlier_version(text: str) -> str:
    """A run's configuration as a version before `# complete` and `keep_checkpoints` wrote it."""
    return "".join(f"{line}\n" for line in text.splitlines() if not line.startswith(("# complete", "keep_checkpoints")))


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 11])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_configuration_that_is_cut_off_takes_no_defaults(earlier: bool, step: int, folder: Path):
    write_checkpoint(folder, 1)
    text = (folder / "config.yaml").read_text()
    found = check_cuts(folder, of_earlier_version(text) if earlier else text, step)
    # Of an earlier version, what stands after num_threads may be missing: profile, init_from, allow, at their defaults.
    assert found["equal"] <= (4 if earlier else 1) and found["refused"] > 500 // step, found


def test_a_whole_configuration_of_an_earlier_version_is_read(folder: Path):
    write_checkpoint(folder, 1)
    (folder / "config.yaml").write_text(of_earlier_version((folder / "config.yaml").read_text()))
    assert metarl.load(folder).trained["iteration"] == 5


def test_a_users_own_configuration_needs_no_end(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("family: Navigation2D\nagent: RL2\nkeep_checkpoints: 3")
    assert config.read(tmp_path / "config.yaml").keep_checkpoints == 3


@pytest.mark.parametrize("content", [b"", b"\x00" * 500, b"\xff\xfe", b"# complete\n"])
def test_a_configuration_of_nothing_is_refused(content: bytes, folder: Path):
    write_checkpoint(folder, 1)
    (folder / "config.yaml").write_bytes(content)
    with pytest.raises(config.ConfigError):
        metarl.load(folder)


# A process that is killed ---------------------------------------------------------------------------------------------


WRITE_FOR_EVER = """
import sys
import torch
from pathlib import Path
import toy
from metarl.evaluation.evaluator import evaluate
from metarl.training import checkpoint
from metarl.training.config import parsing
folder = Path(sys.argv[1])
read = parsing.read(folder / "config.yaml")
agent = read.agent.build(read.family, 1, torch.device("cpu"))
curves = [evaluate(agent, read.family, tasks=tasks) for tasks in (4, 40)]
for number in range(10**9):
    checkpoint.save(folder, agent, checkpoint.Counters(number), keep=3)
    checkpoint.save_best(folder, agent, checkpoint.Counters(number))
    checkpoint.replace_file(folder / "config.yaml", (folder / "config.yaml").read_text())
    if number % 5 == 0:
        curves[number % 2].save(folder / "evaluation" / str(number % 2))
    print(number, flush=True)
"""


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_whole_files(tmp_path: Path):
    write_config(tmp_path)
    draw, partial = random.Random(0), 0
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        )
        assert process.stdout is not None
        for _ in range(draw.randrange(6, 12)):
            assert process.stdout.readline()
        time.sleep(draw.random() / 20)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        metarl.load(tmp_path)
        metarl.load(tmp_path, which="best")
        for number in checkpoint._numbered(tmp_path):
            metarl.load(tmp_path, which=number)
        for path in (tmp_path / "evaluation").glob("*.json"):
            AdaptationCurve.load(path)
        partial += sum(files.PARTIAL.fullmatch(path.name) is not None for path in tmp_path.rglob("*"))
        remove_partial(tmp_path)
    print(partial, "were being written")
