"""A run directory from elsewhere is data: one malicious directory per trick, through every door.

Whatever it holds, nothing is imported, unpickled, followed or waited for, and nothing outside of it is changed: the
program says one sentence and ends with 2, or what the trick aims at does not happen.
"""

from __future__ import annotations

import functools
import io
import os
import shlex
import shutil
import signal
import socket
import stat
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy import TOY, Guess

import metarl
from metarl.cli import compare, evaluate, train, watch
from metarl.core.faults.regular import NotRegular, open_regular, read_regular
from metarl.training import checkpoint, state_file
from metarl.training.config import parsing
from metarl.training.config.errors import ConfigError
from metarl.training.config.file import read_yaml
from metarl.training.config.regular import check_regular
from metarl.training.config.safe_yaml import LONGEST

SMALL = ["--tasks=2", "--split", "test", "--device=cpu", "--quiet"]
SECONDS = 60  # in which every door has to answer


class Open(Guess):
    """A family whose options could be anything, as another project might register."""

    def __init__(self, anything: Any = None, function: Callable | None = None, kind: type | None = None) -> None:
        super().__init__(3)


metarl.register("toy/Open-v0", Open)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one iteration."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "toy.yaml").write_text(TOY)
    given = ["--config", str(folder / "toy.yaml"), "--total_iterations=1", "--quiet", "--run_dir", str(folder / "run")]
    assert train.main(given) == 0
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of that run as ``many/seed_1`` in a working directory with modules that tell when they are imported."""

    def too_long(*_: object) -> None:
        raise AssertionError(f"no answer after {SECONDS} seconds")

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("toy.yaml").write_text(TOY)
    Path("evil").mkdir()
    for name in ("__init__", "family"):
        Path(f"evil/{name}.py").write_text("open('imported', 'w').close()\nclass Evil: pass\n")
    Path("precious").mkdir()
    Path("precious/file").write_text("as it was")
    shutil.copytree(trained, "many/seed_1")
    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    yield Path("many/seed_1")
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def loaded(run: str) -> int:
    """Load as a program would."""
    try:
        metarl.load(run)
    except ValueError as mistake:
        print(mistake, file=sys.stderr)
        return 2
    return 0


NEW = ["--total_iterations=0", "--quiet", "--run_dir=new"]
DOORS: dict[str, Callable[[], int]] = {
    "load": lambda: loaded("many/seed_1"),
    "evaluate": lambda: evaluate.main(["many/seed_1", *SMALL]),
    "evaluate several": lambda: evaluate.main(["many", *SMALL]),
    "compare": lambda: compare.main(["many/seed_1", *SMALL, "--out=out"]),
    "watch": lambda: watch.main(["many/seed_1", "--tasks=2", "--device=cpu"]),
    "resume": lambda: train.main(["--resume=many/seed_1", "--total_iterations=2", "--quiet"]),
    "seeds": lambda: train.main(
        ["--config=toy.yaml", "--seeds=1", "--run_dir=many", "--quiet", "--total_iterations=1"]
    ),
    "init_from": lambda: train.main(["--config=toy.yaml", "--init_from=many/seed_1", *NEW]),
    "config": lambda: train.main(["--config=many/seed_1/config.yaml", *NEW]),
}
USUAL = ("load", "resume", "config")
"""The ways that the default suite tries; the others share their code with one of these."""
every_door = pytest.mark.parametrize(
    "door", [door if door in USUAL else pytest.param(door, marks=pytest.mark.slow) for door in DOORS]
)


def one_sentence(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said on standard error, which is one sentence that fits two lines of a terminal."""
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and len(said.strip()) <= 300, said
    return said


def harmless() -> bool:
    """Nothing was imported, and what is not the run's was neither changed nor added to."""
    untouched = Path("precious/file").read_text() == "as it was" and os.listdir("precious") == ["file"]
    return untouched and not Path("imported").exists() and not {"evil", "evil.family"} & sys.modules.keys()


EVIL = {"class_path": "evil.family.Evil", "init_args": {}}
TOUCH = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "imported"]}}
CONFIGS: dict[str, dict[str, Any]] = {
    "path of a class": {"family": EVIL},
    "path of a class in the agent": {"agent": EVIL},
    "name of a class": {"family": "evil.family.Evil"},
    "module and id": {"family": "evil:theirs/Evil-v0"},
    "module for its side effects": {"family": "this:metarl/X-v0"},
    "allowed by itself": {"family": "theirs/Evil-v0", "allow": ["evil", "evil.family"]},
    "class in an option": {"family": {"name": "toy/Guess-v0", "numbers": EVIL}},
    "class in a text": {"family": {"name": "toy/Guess-v0", "numbers": "{class_path: evil.family.Evil}"}},
    "class in the run's options": {"run_dir": EVIL},
    "class in the agent's options": {"agent": {"name": "RL2", "lr": [[0, EVIL]]}},
    "class in an option of any type": {"family": {"name": "toy/Open-v0", "anything": EVIL}},
    "call in an option of any type": {"family": {"name": "toy/Open-v0", "anything": [[TOUCH]]}},
    "call in a text of any type": {"family": {"name": "toy/Open-v0", "anything": yaml.safe_dump(TOUCH)}},
    "hidden call in a text": {"family": {"name": "toy/Open-v0", "anything": '{"class\\x5fpath": evil.family.Evil}'}},
    "function": {"family": {"name": "toy/Open-v0", "function": "evil.family.Evil"}},
    "call of a function": {"family": {"name": "toy/Open-v0", "function": TOUCH}},
    "type": {"family": {"name": "toy/Open-v0", "kind": "evil.family.Evil"}},
}


@every_door
@pytest.mark.parametrize("trick", CONFIGS)
def test_no_configuration_imports_or_calls(trick: str, door: str, run: Path, capsys: pytest.CaptureFixture[str]):
    written = yaml.safe_load((run / "config.yaml").read_text()) | CONFIGS[trick]
    (run / "config.yaml").write_text(yaml.safe_dump(written))
    modules = {*sys.modules}
    if door == "init_from":  # reads tensors only
        assert DOORS[door]() == 0
    else:
        assert DOORS[door]() == 2
        one_sentence(capsys)
    assert harmless()
    assert not {name for name in sys.modules.keys() - modules if name.partition(".")[0] in ("evil", "this", "theirs")}


def test_a_module_before_a_known_id_is_not_imported(run: Path):
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("toy/Guess-v0", '"evil:toy/Guess-v0"'))
    assert DOORS["load"]() == 0 and harmless()


def test_a_list_of_packages_allows_nothing(run: Path):
    """The note about what a run needs imports nothing, even of a run that needs none of it."""
    text = (run / "config.yaml").read_text()
    for door in ("load", "evaluate", "compare", "resume"):
        (run / "config.yaml").write_text(text.replace("allow: [toy]", "allow: [evil, evil.family]"))
        assert "[evil, evil.family]" in (run / "config.yaml").read_text()
        assert DOORS[door]() == 0 and harmless(), door


TAGS = [
    "!!python/object/apply:os.mkdir [imported]", "!!python/object/new:evil.family.Evil []",
    "!!python/name:evil.family.Evil ''", "!!python/module:evil ''", "!!python/object:evil.family.Evil {}",
    "!evil {}", "!!binary aGk=", "!!set {a}", "!!int x", "!!bool x", "!!float x", "!!timestamp x",
]  # fmt: skip


@pytest.mark.parametrize("tag", TAGS)
def test_no_tag_makes_an_object(tag: str, run: Path, capsys: pytest.CaptureFixture[str]):
    text = (run / "config.yaml").read_text()
    for written in (f"seed: {tag}\n", f"{tag}\n", f"? {tag}\n: 1\n"):
        (run / "config.yaml").write_text(written + text.replace("seed: 1\n", ""))
        for door in DOORS.keys() - {"init_from"}:
            assert DOORS[door]() == 2
            one_sentence(capsys)
    assert harmless()


def linked(path: Path, target: str) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def listening(path: Path) -> None:
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def emptied(path: Path, make: Callable[[str], None]) -> None:
    path.unlink(missing_ok=True)
    make(str(path))


ELSEWHERE = os.path.join("..", "..", "precious")
KINDS: dict[str, Callable[[Path], None]] = {
    "link to a file": lambda path: linked(path, f"{ELSEWHERE}/file"),
    "link to nothing": lambda path: linked(path, f"{ELSEWHERE}/new"),
    "link to a device": lambda path: linked(path, "/dev/zero"),
    "link to a folder": lambda path: linked(path, ELSEWHERE),
    "link to itself": lambda path: linked(path, path.name),
    "pipe": lambda path: emptied(path, os.mkfifo),
    "socket": listening,
}
FILES = ["config.yaml", "checkpoint.safetensors", "metrics.jsonl", "command.txt", "checkpoint.partial", "evaluations"]


@every_door
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_refused(kind: str, door: str, run: Path, capsys: pytest.CaptureFixture[str]):
    for name in FILES:
        if (door == "config" and name != "config.yaml") or (run / name).is_dir():
            continue
        kept = (run / name).read_bytes() if (run / name).exists() else None
        KINDS[kind](run / name)
        assert DOORS[door]() == 2, name
        one_sentence(capsys)
        assert harmless(), name
        (run / name).unlink()
        if kept is not None:
            (run / name).write_bytes(kept)


@every_door
@pytest.mark.parametrize("name", ["config.yaml", "checkpoint.safetensors"])
def test_a_folder_in_the_place_of_a_file(name: str, door: str, run: Path, capsys: pytest.CaptureFixture[str]):
    emptied(run / name, os.mkdir)
    if door in ("config", "seeds") and name == "checkpoint.safetensors":
        return
    assert DOORS[door]() == 2
    one_sentence(capsys)


def test_a_device_is_refused(run: Path):
    try:
        os.mknod(run / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except OSError:
        pytest.skip("only root may make devices")
    with pytest.raises(ConfigError, match="got a device: remove 'zero'"):
        metarl.load(run)


@pytest.mark.parametrize("name", ["evaluation", "evaluations"])
def test_links_in_a_folder_of_several_seeds(name: str, run: Path, capsys: pytest.CaptureFixture[str]):
    """What is written next to the seeds is not written elsewhere."""
    linked(run.parent / name, os.path.join("..", "precious"))
    for door in ("evaluate several", "seeds"):
        assert DOORS[door]() == 2
        assert "a symbolic link" in one_sentence(capsys) and harmless()


def test_a_new_run_writes_through_no_link(run: Path, capsys: pytest.CaptureFixture[str]):
    """A folder without a run in it, but with links where the files of one would be."""
    for name in ("command.txt", "versions.json", ".writable"):
        Path("new").mkdir()
        linked(Path("new") / name, os.path.join("..", "precious", "file"))
        assert train.main(["--config=toy.yaml", "--total_iterations=0", "--quiet", "--run_dir=new"]) == 2
        assert "a symbolic link" in one_sentence(capsys) and harmless()
        shutil.rmtree("new")


def test_a_second_name_is_not_written_through(run: Path, capsys: pytest.CaptureFixture[str]):
    """A copy made of hard links (cp -al) is read, and not continued."""
    (run / "command.txt").unlink()
    os.link("precious/file", run / "command.txt")
    assert DOORS["load"]() == 0
    assert DOORS["resume"]() == 2 and "continue a copy of the folder" in one_sentence(capsys)
    assert harmless()


def test_the_folder_itself_may_be_reached_through_a_link(run: Path):
    Path("elsewhere").symlink_to("many")
    metarl.load("elsewhere/seed_1")
    Path("other").symlink_to(run)
    metarl.load("other")


def test_folders_below_a_run_are_looked_at_too(run: Path):
    deep = run
    for number in range(300):
        deep = deep / f"d{number}"
    os.makedirs(deep)
    check_regular(run)
    (deep / "link").symlink_to("/")
    with pytest.raises(ConfigError, match="got a symbolic link: remove"):
        check_regular(run)


@every_door
@pytest.mark.parametrize("text", ["#" * (LONGEST + 1), "a" * (LONGEST + 1), "seed: 1\n" + " \n" * LONGEST])
def test_a_configuration_of_any_length_is_not_read(text: str, door: str, run: Path, capsys: pytest.CaptureFixture[str]):
    if door == "init_from":
        return
    (run / "config.yaml").write_text(text)
    assert DOORS[door]() == 2 and f"must be at most {LONGEST:,} bytes long" in one_sentence(capsys)


@pytest.mark.parametrize("length", [2**40, 2**63 - 1, 2**64 - 1, 0])
def test_a_checkpoint_with_an_enormous_header(length: int, run: Path, capsys: pytest.CaptureFixture[str]):
    (run / "checkpoint.safetensors").write_bytes(struct.pack("<Q", length) + b'{"a": 1}' + bytes(100))
    for door in ("load", "evaluate", "compare", "resume", "init_from"):
        assert DOORS[door]() == 2
        one_sentence(capsys)


class Bomb:
    """Leaves a file where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("imported", "w")


def test_no_pickle_is_opened(run: Path, monkeypatch: pytest.MonkeyPatch):
    """A model of stable-baselines3 lies next to the checkpoint of its runs."""
    import pickle

    with zipfile.ZipFile(run / "stable_baselines3.zip", "w") as file:
        file.writestr("data", pickle.dumps(Bomb()))
    for name in ("checkpoint.pkl", "checkpoint.pt", "agent.pkl", "vecnormalize.pkl"):
        (run / name).write_bytes(pickle.dumps(Bomb()))
    read: list[str] = []
    really = io.open

    def watching(file: Any, *args: Any, **kwargs: Any) -> Any:
        read.append(str(file))
        return really(file, *args, **kwargs)

    monkeypatch.setattr("builtins.open", watching)
    monkeypatch.setattr("io.open", watching)
    for door in ("load", "evaluate", "compare", "resume", "init_from"):
        assert DOORS[door]() == 0, door
    assert harmless() and not [name for name in read if name.endswith((".zip", ".pkl", ".pt"))]


def test_an_agent_of_another_library_is_loaded_without_its_own_file(run: Path, monkeypatch: pytest.MonkeyPatch):
    agents = [name for name in checkpoint.pretrained() if name.startswith("pretrained:ppo")]
    folder = Path(shutil.copytree(checkpoint.find(agents[0]), "theirs"))
    with zipfile.ZipFile(folder / "stable_baselines3.zip", "w") as file:
        file.writestr("data", b"none of ours")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(zipfile, "ZipFile", never)
    metarl.load(folder)


@pytest.mark.parametrize("name", ["..", ".", "../../up", "a/../../up", "/tmp/up", "..\\up"])
def test_a_name_does_not_become_a_path(name: str, run: Path):
    """That of a line of a comparison is the name of a folder of TensorBoard's."""
    Path("a/b").mkdir(parents=True)
    before = {path for path in Path().rglob("*") if not path.is_relative_to("a/b/out")}
    assert compare.main([f"{name}=many/seed_1", *SMALL, "--out=a/b/out"]) == 0
    assert {path for path in Path().rglob("*") if not path.is_relative_to("a/b/out")} == before
    assert not [path for path in Path("a/b/out").glob("events*") if name == "."][1:]
    assert not Path("/tmp/up").exists()


def test_the_counters_of_a_checkpoint_do_not_become_a_path(run: Path, capsys: pytest.CaptureFixture[str]):
    state, counters = checkpoint.load_state(run)
    from dataclasses import replace

    sly: Any = "../../../precious/x"
    content = state_file.pack(state, replace(counters, iteration=sly))
    (run / "checkpoint.safetensors").write_bytes(content)
    assert evaluate.main(["many/seed_1", *SMALL]) in (0, 2)
    assert harmless() and not Path("many/precious").exists()


@pytest.mark.parametrize("name", ["pretrained:../x", "pretrained:/etc", "pretrained:", "pretrained:rl2_gridnavi/.."])
def test_a_trained_agent_is_named_not_found_by_path(name: str):
    with pytest.raises(ValueError, match="Unknown trained agent"):
        metarl.load(name)
    with pytest.raises(ConfigError, match="must consist of letters"):
        checkpoint.export_pretrained("x", name.removeprefix("pretrained:") + "/..")


def test_nothing_listens(run: Path, monkeypatch: pytest.MonkeyPatch):
    def never(*_: object) -> None:
        raise AssertionError("listens")

    for name in ("bind", "listen"):
        monkeypatch.setattr(socket.socket, name, never)
    for door in ("load", "evaluate", "compare", "seeds", "resume", "init_from", "config"):
        assert DOORS[door]() == 0, door
        shutil.rmtree("new", ignore_errors=True)


@pytest.mark.slow
def test_the_command_that_shows_curves_binds_to_this_machine(run: Path, capsys: pytest.CaptureFixture[str]):
    """TensorBoard's own default, without which the command would have to name it."""
    from tensorboard import default, program

    assert train.main(["--resume=many/seed_1", "--total_iterations=2"]) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1].removeprefix("Curves: "))
    assert command == ["tensorboard", "--logdir", "many/seed_1"]
    tensorboard = program.TensorBoard(default.get_plugins())
    tensorboard.configure([*command, "--port=0", "--load_fast=false"])
    server = tensorboard._make_server()
    try:
        assert server.server_address[0] in ("127.0.0.1", "::1")
    finally:
        server.server_close()


def test_open_regular(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    with open_regular(tmp_path / "file") as file:
        assert file.read() == b"12345"
    assert read_regular(tmp_path / "link", 5, links=True) == b"12345"
    with pytest.raises(NotRegular, match="must be a regular file, got a symbolic link"):
        open_regular(tmp_path / "link")
    with pytest.raises(NotRegular, match="must be at most 4 bytes long"):
        read_regular(tmp_path / "file", 4)
    for missing in ("missing", "file/below"):
        with pytest.raises(OSError):
            open_regular(tmp_path / missing)
    with pytest.raises(NotRegular, match="a folder"):
        open_regular(tmp_path)


def test_a_link_that_appears_after_the_check_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Between looking and opening somebody may put a link there."""
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to("file")
    monkeypatch.setattr(os.path, "islink", lambda path: False)
    with pytest.raises((NotRegular, OSError)):
        open_regular(tmp_path / "link")


def test_a_config_of_the_users_own_may_be_a_link(run: Path):
    """Only the config.yaml of a run is opened without following one."""
    Path("mine.yaml").symlink_to("toy.yaml")
    assert parsing.parse(["mine.yaml"]).values == parsing.parse(["toy.yaml"]).values
    Path("config.yaml").symlink_to("toy.yaml")
    with pytest.raises(ConfigError, match="a symbolic link"):
        read_yaml("config.yaml")


opened = functools.partial(open_regular, links=True)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/stdin"])
def test_a_device_that_the_user_names(path: str, capsys: pytest.CaptureFixture[str]):
    if not Path(path).exists() or Path(path).is_file():
        pytest.skip("this system has no such device")
    assert train.main(["--config", path]) == 2
    assert "must be a regular file" in one_sentence(capsys)
    with pytest.raises(NotRegular):
        opened(path)
