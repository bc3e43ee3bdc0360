"""Curves in files: nothing is lost, and a damaged file is refused in a sentence or read as it was."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.step_curve import StepCurve

FILES = ("test.json", "test.csv", "test_steps.csv")


def curve(seeds: int = 2, tasks: int = 5, points: int = 3) -> AdaptationCurve:
    generator = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        return generator.normal(size=shape).astype(np.float32)

    steps = StepCurve(np.array([0.0, 2.0, 5.0, 10.0]), draw(seeds, tasks, 3), draw(tasks, 3), draw(tasks, 3))
    return AdaptationCurve(
        returns=draw(seeds, tasks, points),
        episodes=np.arange(points, dtype=np.float64),
        env_steps=np.arange(points) * 15.5,
        labels=tuple(f"episode {point + 1}" for point in range(points)),
        random=draw(tasks),
        oracle=draw(tasks),
        agent="RL2",
        family="GridNavi(size=5)",
        split="test",
        greedy=False,
        repeats=4,
        eval_seed=7,
        distinct=9,
        total_steps=46.5,
        task_values={"goal": draw(tasks, 2), "angle": draw(tasks, 1)},
        training=tuple({"seed": seed, "iteration": 10, "env_steps": 100} for seed in range(seeds)),
        versions={"torch": "2"},
        steps=steps,
        noise=np.abs(draw(seeds, points + 2)).astype(np.float64),
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    curve().save(folder / "test")
    return folder


@pytest.fixture(scope="module")
def older(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same files as a version without checksums wrote them."""
    folder = tmp_path_factory.mktemp("older")
    for name in FILES:
        shutil.copy(saved / name, folder / name)
    lines = (folder / "test.json").read_text().splitlines()
    kept = [line for line in lines if not line.startswith((' "checksum',))]
    (folder / "test.json").write_text("\n".join(kept).replace("},\n}", "}\n}") + "\n")
    assert json.loads((folder / "test.json").read_text()).keys() < json.loads((saved / "test.json").read_text()).keys()
    return folder


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, StepCurve):
        return same(vars_of(a), vars_of(b))
    return bool(a == b)


def vars_of(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def equal(a: AdaptationCurve, b: AdaptationCurve) -> bool:
    return same(vars_of(a), vars_of(b))


@pytest.mark.parametrize("which", ["saved", "older"])
def test_a_curve_comes_back_as_it_was(which: str, request: pytest.FixtureRequest):
    assert equal(AdaptationCurve.load(request.getfixturevalue(which) / "test"), curve())


def test_what_is_not_finite_comes_back_too(tmp_path: Path):
    one = curve()
    one.returns[0, 1, 2], one.returns[1, 0, 0], one.oracle[3] = np.nan, -np.inf, np.nan  # type: ignore[index]
    with np.errstate(invalid="ignore"):
        one.save(tmp_path / "test")
        assert equal(AdaptationCurve.load(tmp_path / "test"), one)


def test_line_ends_of_another_system_are_no_damage(saved: Path, tmp_path: Path):
    for name in FILES:
        (tmp_path / name).write_bytes((saved / name).read_bytes().replace(b"\n", b"\r\n"))
    assert equal(AdaptationCurve.load(tmp_path / "test"), curve())


# Damage -------------------------------------------------------------------------------------------------------------


def flip(data: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(data))
    data[at] ^= 1 << draw.randrange(8)


def cut(data: bytearray, draw: random.Random) -> None:
    del data[draw.randrange(len(data)) :]


def digit(data: bytearray, draw: random.Random) -> None:
    at = draw.choice([at for at, byte in enumerate(data) if chr(byte).isdigit()])
    data[at] = draw.choice([byte for byte in b"0123456789" if byte != data[at]])


def nothing(data: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(data))
    data[at : at + 40] = bytes(len(data[at : at + 40]))


def swap(data: bytearray, draw: random.Random) -> None:
    lines = bytes(data).splitlines(keepends=True)
    a, b = draw.sample(range(len(lines)), 2)
    lines[a], lines[b] = lines[b], lines[a]
    data[:] = b"".join(lines)


def lose(data: bytearray, draw: random.Random) -> None:
    lines = bytes(data).splitlines(keepends=True)
    del lines[draw.randrange(len(lines))]
    data[:] = b"".join(lines)


def twice(data: bytearray, draw: random.Random) -> None:
    lines = bytes(data).splitlines(keepends=True)
    at = draw.randrange(len(lines))
    lines.insert(at, lines[at])
    data[:] = b"".join(lines)


CELLS = (b"", b"nan", b"abc", b"1e999", b"1_0", b" 1", b"null", b"\xff", b"[1]")


def cell(data: bytearray, draw: random.Random) -> None:
    lines = [line.split(b",") for line in bytes(data).split(b"\n")]
    line = draw.choice([line for line in lines if len(line) > 1])
    line[draw.randrange(len(line))] = draw.choice(
        [b"", b"nan", b"abc", b"1e999", b"1_0", b" 1", b"null", b"\xff", b"[1]"]
    )
    data[:] = b"\n".join(b",".join(line) for line in lines)


DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (flip, cut, digit, nothing, swap, lose, twice, cell)


def damaged_copies(folder: Path, into: Path, count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Damage one of the files, a different one each time; yields the kind of damage and the file's name."""
    draw = random.Random(seed)
    originals = {name: (folder / name).read_bytes() for name in FILES}
    for number in range(count):
        name, damage = FILES[number % 3], DAMAGES[number // 3 % len(DAMAGES)]
        data = bytearray(originals[name])
        damage(data, draw)
        for each in FILES:
            (into / each).write_bytes(originals[each])
        (into / name).write_bytes(bytes(data))
        if bytes(data) != originals[name]:
            yield damage.__name__, name


def check_damage(folder: Path, into: Path, count: int, seed: int = 0) -> dict[str, int]:
    """Load damaged copies. Returns how many were refused, read as they were, and read with other values."""
    whole, found = curve(), {"refused": 0, "equal": 0, "other": 0}
    for kind, name in damaged_copies(folder, into, count, seed):
        try:
            loaded = AdaptationCurve.load(into / "test")
        except ValueError as error:
            sentence = str(error)
            assert "\n" not in sentence and str(into) in sentence and sentence.endswith("."), (kind, name, sentence)
            assert len(sentence.replace(str(into), "")) <= 260, sentence
            found["refused"] += 1
        else:
            found["equal" if equal(loaded, whole) else "other"] += 1
    return found


def test_a_damaged_file_is_refused_or_read_as_it_was(saved: Path, tmp_path: Path):
    found = check_damage(saved, tmp_path, 1200)
    assert found["other"] == 0 and found["refused"] > 1000, found


@pytest.mark.slow
def test_many_damaged_files_are_refused_or_read_as_they_were(saved: Path, tmp_path: Path):
    found = check_damage(saved, tmp_path, 20_000, seed=1)
    assert found["other"] == 0 and found["refused"] > 15_000, found


def test_damage_of_a_file_without_a_checksum_never_ends_in_another_error(older: Path, tmp_path: Path):
    """A digit inside a number is noticed only with a checksum; everything else is."""
    found = check_damage(older, tmp_path, 1200, seed=2)
    assert found["refused"] > found["other"] + found["equal"], found


@pytest.mark.parametrize("name", ["test.csv", "test_steps.csv"])
def test_a_missing_part_is_named(name: str, saved: Path, tmp_path: Path):
    for each in FILES:
        shutil.copy(saved / each, tmp_path / each)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=name.replace(".", r"\.") + ".*is missing"):
        AdaptationCurve.load(tmp_path / "test")


def test_no_curve_at_all_is_a_missing_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        AdaptationCurve.load(tmp_path / "test")


@pytest.mark.parametrize("name", ["test.csv", "test_steps.csv"])
@pytest.mark.parametrize("which", ["saved", "older"])
def test_files_of_two_evaluations_are_not_one(which: str, name: str, request: pytest.FixtureRequest, tmp_path: Path):
    for each in FILES:
        shutil.copy(request.getfixturevalue(which) / each, tmp_path / each)
    curve(tasks=6).save(tmp_path / "other")
    shutil.copy(tmp_path / name.replace("test", "other"), tmp_path / name)
    with pytest.raises(ValueError, match="is damaged"):
        AdaptationCurve.load(tmp_path / "test")


DOCUMENTS = {
    "list": "[]",
    "nested": "[" * 100_000,
    "deep": '{"agent": ' + "[" * 500 + "]" * 500 + "}",
    "empty": "",
    "null": "null",
    "nan": '{"agent": NaN}',
    "twice": '{"agent": "a", "agent": "b"}',
    "digits": '{"repeats": ' + "9" * 5000 + "}",
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_is_no_curve_is_refused(name: str, tmp_path: Path):
    (tmp_path / "test.json").write_text(DOCUMENTS[name])
    with pytest.raises(ValueError, match="is damaged") as caught:
        AdaptationCurve.load(tmp_path / "test")
    assert len(str(caught.value).replace(str(tmp_path), "")) < 200


WRONG = {
    "agent": 3, "greedy": "no", "rounds": 1, "labels": "episode 1", "episodes": [0.0, None, 2.0],
    "env_steps": [0, -1, 2], "repeats": 0, "eval_seed": 1.5, "distinct": True, "episodes_of_a_point": 2.5,
    "total_steps": "1", "training": {}, "versions": {"torch": 2}, "noise": [[0.1, "a"]],
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_field_of_another_type_is_named(name: str, older: Path, tmp_path: Path):
    for each in FILES:
        shutil.copy(older / each, tmp_path / each)
    plain = json.loads((older / "test.json").read_text())
    (tmp_path / "test.json").write_text(json.dumps(plain | {name: WRONG[name]}))
    with pytest.raises(ValueError, match=f"{name!r} must be"):
        AdaptationCurve.load(tmp_path / "test")


def test_a_field_that_is_missing_is_named(older: Path, tmp_path: Path):
    for each in FILES:
        shutil.copy(older / each, tmp_path / each)
    plain = json.loads((older / "test.json").read_text())
    for name in ("agent", "family", "split", "greedy", "rounds", "labels", "episodes", "env_steps"):
        (tmp_path / "test.json").write_text(json.dumps({key: value for key, value in plain.items() if key != name}))
        with pytest.raises(ValueError, match=f"it has no {name!r}"):
            AdaptationCurve.load(tmp_path / "test")
