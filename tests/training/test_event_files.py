"""TensorBoard shows each point of a run once, however the run was interrupted."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.util import tensor_util
from torch.utils.tensorboard import SummaryWriter

from metarl.training.log.event_files import PREFIX, rewind

HOUR = 3600.0


def never(tag: str, step: int) -> bool:
    return False


def write(folder: Path, steps: range, shift: float = 0.0, purge: int | None = None) -> None:
    """One session of a run: at each step a point, whose value is the step moved by `shift`."""
    with SummaryWriter(str(folder), purge_step=purge) as writer:
        for step in steps:
            writer.add_scalar("train/return", step + shift, step)


def accumulated(folder: Path, tag: str = "train/return") -> list[tuple[int, float]]:
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    return [(event.step, event.value) for event in found.Scalars(tag)]


def served(folder: Path, tag: str = "train/return") -> list[tuple[int, float]]:
    """The points as TensorBoard's server has them."""
    runs = EventMultiplexer(tensor_size_guidance={"scalars": 0})
    runs.AddRunsFromDirectory(str(folder.parent))
    runs.Reload()
    return [(e.step, float(tensor_util.make_ndarray(e.tensor_proto))) for e in runs.Tensors(folder.name, tag)]


@pytest.mark.parametrize("clock", [0.0, -HOUR, HOUR], ids=["the same second", "set back", "later"])
@pytest.mark.parametrize("checkpoint", [-1, 0, 5, 9])
def test_a_session_goes_on_from_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: int, clock: float
):
    """Three sessions, of which each is killed beyond the checkpoint, from which the next goes on."""
    now = time.time()
    for session in range(3):
        monkeypatch.setattr(time, "time", lambda now=now, session=session: now + session * clock)
        (tmp_path / "run").mkdir(exist_ok=True)
        left = rewind(tmp_path / "run", checkpoint if session else -1, never)
        assert bool(left) == (session > 0 and checkpoint >= 0)
        first = checkpoint + 1 if session else 0
        write(tmp_path / "run", range(first, 10), session / 4, purge=first if session else None)
    expected = [(step, step + (0.5 if step > checkpoint else 0.0)) for step in range(10)]
    assert accumulated(tmp_path / "run") == served(tmp_path / "run") == expected


def test_without_it_points_are_lost_or_doubled_when_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What TensorBoard itself does; were it otherwise, there would be nothing to mend."""
    write(tmp_path / "run", range(10))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - HOUR)
    write(tmp_path / "run", range(6, 10), purge=6)
    assert [step for step, _ in served(tmp_path / "run")] == [6, 7, 8, 9, *range(10)]


def test_values_that_are_written_again_are_taken_out_and_others_stay(tmp_path: Path):
    with SummaryWriter(str(tmp_path)) as writer:
        for tag in ("train/return", "eval/test/score"):
            for step in (100, 200):
                writer.add_scalar(tag, step, step)
        writer.add_text("config", "lr: 1", 200)
    assert rewind(tmp_path, 200, lambda tag, step: step == 200 and tag.startswith("eval/"))
    assert accumulated(tmp_path) == [(100, 100.0), (200, 200.0)]
    assert accumulated(tmp_path, "eval/test/score") == [(100, 100.0)]
    assert EventAccumulator(str(tmp_path)).Reload().Tags()["tensors"] == ["config/text_summary"]


def test_an_event_of_several_values_keeps_the_others(tmp_path: Path):
    values = [Summary.Value(tag=tag, simple_value=1.0) for tag in ("train/return", "eval/test/score")]
    with SummaryWriter(str(tmp_path)) as writer:
        writer._get_file_writer().add_summary(Summary(value=values), 3)
    rewind(tmp_path, 3, lambda tag, step: tag.startswith("eval/"))
    assert EventAccumulator(str(tmp_path)).Reload().Tags()["scalars"] == ["train/return"]


def test_a_file_that_needs_no_change_keeps_every_byte_and_a_second_call_changes_nothing(tmp_path: Path):
    write(tmp_path, range(5))
    (path,) = tmp_path.iterdir()
    before = path.read_bytes()
    assert rewind(tmp_path, 4, never)
    assert [found.read_bytes() for found in tmp_path.iterdir()] == [before]
    rewind(tmp_path, 2, never)
    once = {found.name: found.read_bytes() for found in tmp_path.iterdir()}
    assert [step for step, _ in accumulated(tmp_path)] == [0, 1, 2] and len(once) == 1
    rewind(tmp_path, 2, never)
    assert sorted(once.values()) == sorted(found.read_bytes() for found in tmp_path.iterdir())


@pytest.mark.parametrize("cut", [1, 4, 5, 20, 40])
def test_an_incomplete_record_of_a_killed_run_ends_the_file(tmp_path: Path, cut: int):
    write(tmp_path / "run", range(5))
    (path,) = (tmp_path / "run").iterdir()
    path.write_bytes(path.read_bytes()[:-cut])
    rewind(tmp_path / "run", 3, never)
    write(tmp_path / "run", range(4, 6), purge=4)
    assert [step for step, _ in served(tmp_path / "run")] == [0, 1, 2, 3, 4, 5]


def test_other_files_are_left_alone(tmp_path: Path):
    write(tmp_path, range(3))
    others = {name: f"{name}".encode() for name in ("metrics.jsonl", "checkpoint.safetensors", f"{PREFIX}theirs")}
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    rewind(tmp_path, -1, never)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"metrics.jsonl", "checkpoint.safetensors"}, "an event file without events is empty"
