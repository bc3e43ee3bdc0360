"""The GPU measurement, rehearsed on the CPU: it says everything, loses little, and ends in time."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import parity, sections
from benchmarks.gpu.children import Child, lines_of
from benchmarks.gpu.table import LINES, table

ROOT = Path(__file__).parent.parent


def asked(tmp_path: Path, seconds: float = 60.0) -> sections.Asked:
    return sections.Asked(torch.device("cpu"), True, seconds, tmp_path, time.monotonic())


@pytest.mark.slow
def test_the_whole_command(tmp_path: Path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--tiny", "--minutes", "4"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    found = json.loads((tmp_path / "gpu.json").read_text("utf-8"))
    assert list(found["sections"]) == [section.name for section in gpu.SECTIONS]
    assert {name: section["status"] for name, section in found["sections"].items()} == dict.fromkeys(
        sections.SECTIONS, "done"
    )
    speeds = [result["steps_per_second"] for result in found["sections"]["speed"]["results"]]
    assert len(speeds) == len(sections.SPEEDS) and min(speeds) > 0
    assert all(result["difference"] == 0.0 for result in found["sections"]["parity"]["results"])
    assert {result["name"] for result in found["sections"]["targets"]["results"]} == {"bandit", "gridnavi", "maml"}
    shown = done.stdout.partition("\n\n")[2].splitlines()
    assert len(shown) <= LINES + 1 and "CPU against the device" in done.stdout


def test_sections_are_in_order_and_each_has_its_share_and_what_is_left():
    now, given, written = [0.0], {}, []

    def run(section: gpu.Section, seconds: float, take: Any) -> str:
        given[section.name] = seconds
        if section.name == "speed":
            now[0] += 1000.0  # it did not keep to its time
            return "out of time"
        now[0] += 1.0
        take({"name": "x"})
        return "done"

    found = gpu.measure(run, 6.0, lambda state: written.append(json.dumps(state)), lambda: now[0])
    assert [section.name for section in gpu.SECTIONS] == list(sections.SECTIONS) == list(found["sections"])
    assert math.isclose(sum(section.share for section in gpu.SECTIONS), 1.0)
    assert given["machine"] == pytest.approx(0.06 * 360.0) and given["tests"] == pytest.approx(0.28 * 360.0 - 1.0)
    assert list(given) == ["machine", "tests", "capture", "speed"], "after that there was no time"
    assert found["sections"]["kernels"]["status"] == "no time was left"
    assert '"x"' in written[2] and '"tests"' not in written[1], "written as soon as it is there"


def test_a_section_that_fails_or_hangs_loses_its_rest_alone():
    program = "import json, sys, time; print(json.dumps({'name': 'one'}), flush=True); "
    found: list[dict[str, Any]] = []
    for end, status in (
        ("", "done"),
        ("raise ValueError('no luck')", "failed: ValueError: no luck"),
        ("time.sleep(60)", "out of time after 2 s"),
    ):
        assert lines_of([sys.executable, "-c", program + end], 2.0, found.append) == status
    assert found == [{"name": "one"}] * 3


def test_a_child_that_is_silent_is_noticed():
    child = Child([sys.executable, "-c", "import time; print('a', flush=True); time.sleep(60)"])
    lines = child.lines(time.monotonic() + 50.0, silence=2.0)
    assert next(lines) == "a"
    with pytest.raises(TimeoutError):
        next(lines)
    assert child.end() != 0


def test_what_fails_inside_a_section_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_memory(work: Any, plain: bool = False) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to allocate 80 GiB")

    monkeypatch.setattr(sections.ours, "training", no_memory)
    results = list(sections.speed(asked(tmp_path, 20.0)))
    failed = {result["name"]: result["failed"] for result in results if "failed" in result}
    assert failed["W1 × 16,384"] == "OutOfMemoryError: CUDA out of memory."
    assert [result["name"] for result in results if "steps_per_second" in result] == ["W5 × 1,048,576"]
    assert any(
        "captured" not in result and "OutOfMemory" in result["failed"] for result in sections.capture(asked(tmp_path))
    )


def test_speeds_are_of_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A work that takes 10 ms for 50 steps makes 5000 a second, whatever was asked for."""

    def training(work: Any, plain: bool = False) -> Any:
        def call() -> int:
            time.sleep(0.01)
            return 50

        return call

    monkeypatch.setattr(sections.ours, "training", training)
    monkeypatch.setattr(sections, "SPEEDS", sections.SPEEDS[:1])
    (result,) = sections.speed(asked(tmp_path, 10.0))
    assert 2500.0 < result["steps_per_second"] <= 5000.0 and result["of_peak_operations"] > 0.0


def test_without_a_gpu_its_parts_say_so(tmp_path: Path):
    (counts,) = sections.tests(asked(tmp_path))
    assert counts["ended"] == "not run: they need a CUDA device"
    assert {
        result["why_not"]
        for result in sections._captured("W1", sections._sized(sections.WORKS["W1"], None, asked(tmp_path)))
    } == {"cpu has no graphs"}


def test_plain_calls_capture_nothing():
    call = sections.ours.training(sections._sized(sections.WORKS["W3"], None, asked(Path())), plain=True)
    parts = sections.ours.captured_parts(call)
    assert set(parts) == {"rollout", "minibatch", "propose", "judge"}
    assert {part.why_not for part in parts.values()} == {"plain calls were asked for"}


@pytest.mark.parametrize("name", ["RL², gru", "MAML, vpg, TRPO"])
def test_two_devices_are_compared(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    same = parity.compare(name, torch.device("cpu"), tmp_path)
    assert same == {"difference": 0.0, "first": 0.0, "there_and_back": True, "goes_on": 0.0}
    honest, calls = parity.iterate, []

    def other(agent: Any, family: Any, number: int) -> None:
        honest(agent, family, number)
        calls.append(agent)
        if len(calls) == 2:  # the one on the device
            with torch.no_grad():
                next(agent.net.parameters()).mul_(1.01)

    monkeypatch.setattr(parity, "iterate", other)
    assert parity.compare(name, torch.device("cpu"), tmp_path)["difference"] == pytest.approx(0.01, rel=0.2)


def test_the_table_is_short_whatever_happened():
    results = {"name": "W1", "failed": "x" * 500}
    found = {"sections": {name: {"status": "failed: y", "results": [results] * 50} for name in sections.SECTIONS}}
    found["sections"]["machine"]["results"] = []
    found["sections"]["tests"]["results"] = [{"name": f"t::{n}", "outcome": "failed"} for n in range(30)]
    lines = table(found)
    assert len(lines) == LINES and max(map(len, lines)) <= 110


def test_mistakes(capsys: pytest.CaptureFixture[str]):
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit) as ended:
            gpu.main(["--device", "cuda"])
        assert ended.value.code == 2 and "there is no CUDA device here" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--device", "cpu", "--minutes", "0"])
    assert ended.value.code == 2 and "--minutes must lie between 0 and 600" in capsys.readouterr().err
