"""The lock of a folder: one process at a time, none left behind by the dead, and a text where there are no locks."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metarl.cli import compare, evaluate
from metarl.training import lock
from metarl.training.config.errors import ConfigError
from metarl.training.lock import LOCK, locked, owner

ROOT = Path(__file__).parents[2]

HOLD = """
import os, sys, time
from pathlib import Path
from metarl.training.lock import locked
with locked(Path(sys.argv[1]), print):
    if "fork" in sys.argv:
        told, tell = os.pipe()
        if os.fork() == 0:
            os.write(tell, b"!")  # it is running, so what a fork does first is done
            os.close(1)
            time.sleep(60)
            os._exit(0)
        os.read(told, 1)
    print("held", flush=True)
    time.sleep(60)
"""

COMPETE = """
import os, sys
from pathlib import Path
from metarl.training.config.errors import ConfigError
from metarl.training.lock import locked
folder, inside, had, refused = Path(sys.argv[1]), Path(sys.argv[2]), 0, 0
while had < 20:
    try:
        with locked(folder, print):
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails if anybody else is inside
            had += 1
            inside.unlink()
    except ConfigError:
        refused += 1
print(had, refused)
"""


def start(program: str, *args: object) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, *map(str, args)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def said() -> list[str]:
    return []


def refusal(folder: Path, said: list[str]) -> str:
    """The sentence by which a folder's lock is refused."""
    with pytest.raises(ConfigError) as refused, locked(folder, said.append):
        pass
    return str(refused.value)


def test_a_second_one_is_refused_by_the_owner_s_name(tmp_path: Path, said: list[str]):
    with locked(tmp_path, said.append):
        me = owner(tmp_path)
        assert me is not None and (me.pid, me.host) == (os.getpid(), socket.gethostname())
        sentence = refusal(tmp_path, said)
        assert f"is being written by process {os.getpid()} on {me.host} " in sentence and len(sentence) < 300
        assert owner(tmp_path) == me, "the refused one has changed nothing"
    assert not list(tmp_path.iterdir()) and not said
    with locked(tmp_path, said.append):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="there are no forks and no kill -9")
@pytest.mark.parametrize("fork", [[], ["fork"]], ids=["single", "with a child that lives on"])
def test_a_dead_process_holds_nothing(tmp_path: Path, said: list[str], fork: list[str]):
    process = start(HOLD, tmp_path, *fork)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    assert f"by process {process.pid} on" in refusal(tmp_path, said)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert (tmp_path / LOCK).exists(), "what a killed process leaves"
    with locked(tmp_path, said.append):
        assert owner(tmp_path).pid == os.getpid()  # type: ignore[union-attr]


def test_processes_are_never_inside_together(tmp_path: Path):
    """Also while they make and remove the file again and again."""
    (tmp_path / "folder").mkdir()
    processes = [start(COMPETE, tmp_path / "folder", tmp_path / "inside") for _ in range(4)]
    for process in processes:
        out, _ = process.communicate(timeout=240)
        assert process.returncode == 0 and out.split()[0] == "20"


def test_a_link_is_not_followed(tmp_path: Path, said: list[str]):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(victim)
    with pytest.raises(OSError), locked(tmp_path / "run", said.append):
        pass
    assert victim.read_text() == "mine"


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks."""

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "_lock", refuse)


def write(folder: Path, pid: int, host: str) -> None:
    (folder / LOCK).write_text(json.dumps({"pid": pid, "host": host, "started": "2026-01-31 12:00:00"}))


def test_without_locks_the_text_decides(no_locks: None, tmp_path: Path, said: list[str]):
    with locked(tmp_path, said.append):
        assert len(said) == 1 and "does not support locks" in said[0] and owner(tmp_path) is not None
        sentence = refusal(tmp_path, said)
        assert f"by process {os.getpid()} on" in sentence and "according to its lock file" in sentence
    assert not list(tmp_path.iterdir())
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    write(tmp_path, dead.pid, socket.gethostname())
    with locked(tmp_path, said.append):
        assert owner(tmp_path).pid == os.getpid()  # type: ignore[union-attr]
    write(tmp_path, dead.pid, "elsewhere")
    sentence = refusal(tmp_path, said)
    assert " on elsewhere " in sentence and f"or remove {str(tmp_path / LOCK)!r} if that process has ended" in sentence
    assert owner(tmp_path) == (dead.pid, "elsewhere", "2026-01-31 12:00:00")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x", "host": 1, "started": 2}', '{"pid": null}'])
def test_a_damaged_text_names_nobody(no_locks: None, tmp_path: Path, said: list[str], text: str):
    (tmp_path / LOCK).write_text(text)
    assert owner(tmp_path) is None
    with locked(tmp_path, said.append):
        assert owner(tmp_path) is not None


def test_what_a_text_says_can_be_printed(tmp_path: Path):
    write(tmp_path, 1, "\x1b[31m" + "x" * 1000)
    assert str(owner(tmp_path)).isprintable() and len(str(owner(tmp_path))) < 150


def test_programs_do_not_write_into_one_folder_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    out.mkdir()
    small = ["pretrained:rl2_bernoulli_bandit", "--tasks=5", "--split=test", "--quiet", f"--out={out}"]
    for program in (evaluate.main, compare.main):
        with locked(out, print):
            assert program(small) == 2
        said = capsys.readouterr().err
        assert f"is being written by process {os.getpid()} on" in said and said.count("\n") == 1
        assert program(small) == 0 and not (out / LOCK).exists()


def test_waiting_for_a_name_is_short(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch):
    with locked(tmp_path, said.append):
        (tmp_path / LOCK).write_text("")
        before = time.monotonic()
        assert "by another process" in refusal(tmp_path, said)
        assert time.monotonic() - before < 10
