"""`benchmarks.gpu`: the whole command on a CPU in sizes that take no time, and what it does when things go wrong."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

from benchmarks import floor, ours
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import agreement, items, kernels, marked_tests, peer, recordings, report, speed
from benchmarks.gpu.__main__ import SECTIONS, Section, main
from benchmarks.gpu.items import Forked, Inline, Item, Result
from benchmarks.gpu.settings import Settings
from benchmarks.run import ROOT
from benchmarks.time_to_target import records
from benchmarks.works import WORKS, tiny
from metarl.core import rng
from metarl.core.faults.memory import row_numbers
from metarl.fast import capture
from metarl.fast.capture import Captured

CPU = torch.device("cpu")
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks of a process")


def text_of(name: str, result: Result) -> str:
    return f"{name} found {result['value']}"


def section(letter: str, *some: Item, share: float = 1.0) -> Section:
    return Section(letter, f"section {letter}", SimpleNamespace(items=lambda *_: list(some), text=text_of), share)


def found_in(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "gpu.json").read_text("utf-8"))
    return found


def test_the_whole_command_on_a_cpu(tmp_path: Path):
    options = ["--device", "cpu", "--tiny", "--minutes", "1.5", "--out", str(tmp_path)]
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.gpu", *options]
    run = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    found = found_in(tmp_path)
    results = {letter: one["results"] for letter, one in found["sections"].items()}
    assert [*results] == list("abcdefgh") and found["device"] == "cpu" and found["tiny"]
    errors = {name: one["error"] for some in results.values() for name, one in some.items() if "error" in one}
    assert errors == {}
    assert results["a"]["versions"]["torch"] == torch.__version__ and results["a"]["copy"]["bytes"] > 1e6
    assert results["b"]["tests"]["skipped"] == results["c"]["all"]["skipped"] == "no CUDA device"
    assert len(results["d"]) == len(speed.CASES)
    for case in speed.CASES:
        one = results["d"][case.name]
        assert one["median"] > 0 if case.recorded and not case.exact else "no CUDA device" in one["skipped"]
    assert all("ratio" in one or one["skipped"] == "jax is not installed" for one in results["e"].values())
    assert results["f"]["gridnavi"]["value"] is None and results["f"]["gridnavi"]["best"] < 35
    compared = [one for one in results["g"].values() if "relative" in one]
    assert len(compared) == len(agreement.agents(tiny=True))
    assert all(one["relative_last_digit"] > 0.0 for one in compared)
    assert all(one["relative"] == one["relative_played"] == one["rows_played_otherwise"] == 0.0 for one in compared)
    travelled = [one for one in results["g"].values() if "equal_when_back" in one]
    assert len(travelled) == 2
    assert all(one["equal_on_cpu"] and one["equal_when_back"] and one["relative_back"] == 0.0 for one in travelled)
    assert all(len(one["top"]) == 10 and set(one["copies_in_rollout"].values()) == {0} for one in results["h"].values())
    printed, table = run.stdout.split("\n\n")
    assert len(table.splitlines()) <= 40 and table.startswith("metarl on cpu") and "no measurement" in table
    assert len(printed.splitlines()) == sum(map(len, results.values()))


def test_an_error_is_noted_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fails(_: float) -> Result:
        raise RuntimeError("CUDA out of memory.\nand more")

    def half(_: float) -> Iterator[Result]:
        yield {"value": 1}
        raise ValueError

    def unprepared(*_: Any) -> list[Item]:
        raise OSError("nothing here")

    broken = Section("b", "broken", SimpleNamespace(items=unprepared, text=text_of), 1.0)
    fine = Item("fine", lambda _: {"value": 2})
    wordless = Item("wordless", lambda _: {})
    some = (section("a", Item("fails", fails), Item("half", half), fine), broken, section("c", wordless, fine))
    monkeypatch.setattr(command, "SECTIONS", some)
    assert main(["--device", "cpu", "--out", str(tmp_path)], isolated=False) == 0
    found = found_in(tmp_path)["sections"]
    assert found["a"]["results"]["fails"]["error"] == "RuntimeError: CUDA out of memory."
    assert found["a"]["results"]["half"]["value"] == 1 and found["a"]["results"]["half"]["error"] == "ValueError"
    assert found["a"]["results"]["fine"]["value"] == 2 and found["c"]["results"]["fine"]["value"] == 2
    assert found["b"]["error"] == "OSError: nothing here"
    said = capsys.readouterr().out
    assert "(a) fails failed: RuntimeError: CUDA out of memory." in said and "(a) fine found 2" in said
    assert "(b) broken failed: OSError: nothing here" in said and "(c) wordless: cannot be described" in said


def test_time_is_shared_and_never_exceeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By a clock that only the items move. What an item or a section does not need is for the later ones."""
    now, told = [0.0], {}

    def taking(name: str, factor: float) -> Item:
        def call(seconds: float) -> Result:
            told[name] = seconds
            now[0] += factor * seconds
            return {"value": name}

        return Item(name, call)

    some = (
        section("a", taking("quick", 0.5), taking("slow", 3.0), taking("late", 1.0), share=2.0),
        section("b", taking("first", 0.0), taking("last", 1.0)),
        section("c", taking("other", 1.0)),
    )
    monkeypatch.setattr(command, "SECTIONS", some)
    main(["--device", "cpu", "--out", str(tmp_path), "--minutes", "2"], clock=lambda: now[0], isolated=False)
    whole = 120 * (1 - command.RESERVE)
    share = 0.9 * whole / 6  # of the items of a, which has half of the time
    assert told["quick"] == pytest.approx(share)
    assert told["slow"] == pytest.approx(0.9 * (whole / 2 - 0.5 * share) / 2)
    found = found_in(tmp_path)["sections"]
    assert found["a"]["results"]["late"] == {"skipped": "out of time"} and "late" not in told
    left = 0.75 * whole - 0.5 * told["quick"] - 3.0 * told["slow"]  # a has run over, at the cost of b
    assert told["first"] == pytest.approx(0.9 * left / 2) and told["last"] == pytest.approx(0.9 * left)
    assert told["other"] == pytest.approx(0.9 * (whole / 4 + 0.1 * left))
    assert now[0] <= 120
    now[0], some = 0.0, (section("a", taking("long", 9.0)), section("b", taking("never", 1.0)))
    monkeypatch.setattr(command, "SECTIONS", some)
    main(["--device", "cpu", "--out", str(tmp_path), "--minutes", "2"], clock=lambda: now[0], isolated=False)
    assert found_in(tmp_path)["sections"]["b"]["skipped"] == "out of time"


def test_without_a_device_it_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--device", "cuda", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith("device is 'cuda', but torch finds no CUDA device here")
    for wrong in (["--minutes", "0"], ["--only", "az"]):
        with pytest.raises(SystemExit):
            main(wrong)
    assert "minutes must be positive" in (said := capsys.readouterr().err) and "sections a to h, got 'z'" in said


@FORKS
def test_what_hangs_or_dies_takes_nothing_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(items, "LEAST", 0.3)
    seen: list[tuple[str, Result]] = []

    def hangs(_: float) -> Iterator[Result]:
        yield {"value": "half"}
        subprocess.run([sys.executable, "-c", "import time; time.sleep(60)"], check=True)

    def raises(_: float) -> Result:
        raise LookupError("gone")

    def where(_: float) -> Result:
        return {"value": os.getpid()}

    some = [
        Item("one", where),
        Item("two", where),
        Item("alone", where, alone=True),
        Item("hangs", hangs),
        Item("dies", lambda _: os._exit(3)),
        Item("raises", raises),
        Item("last", where),
    ]
    end = time.monotonic() + 60.0
    begun = time.monotonic()
    # Little is left, so that the shares are small.
    worker = Forked(some, tmp_path / "log")
    left: Callable[[], float] = lambda: min(1.0, end - time.monotonic())  # noqa: E731
    items.run(worker, left, lambda item, result, _: seen.append((item.name, result)), time.monotonic)
    assert time.monotonic() - begun < 10.0
    last = dict(seen)
    assert last["one"]["value"] == last["two"]["value"] != os.getpid()
    assert last["alone"]["value"] not in (last["one"]["value"], last["last"]["value"])
    assert last["hangs"]["value"] == "half" and "was ended after" in last["hangs"]["error"]
    assert last["dies"]["error"] == "its process ended with code 3"
    assert last["raises"]["error"] == "LookupError: gone" and "value" in last["last"]
    assert "LookupError: gone" in (tmp_path / "log").read_text("utf-8")


MARKED = """
import os, time
import pytest

pytestmark = pytest.mark.gpu

def test_fine(): pass
def test_fine_too(): pass
def test_wrong(): assert 1 == 2, "no"
def test_hangs(): time.sleep(60)
@pytest.mark.parametrize("n", [1, 2])
def test_dies(n): os._exit(n)
def test_ruins(): raise RuntimeError("CUDA error: an illegal memory access was encountered")
def test_skips(): pytest.skip("not here")
"""


def test_marked_tests_go_on_after_one_that_hangs_dies_or_ruins_the_process(tmp_path: Path):
    path, unreadable = tmp_path / "test_it.py", tmp_path / "test_unreadable.py"
    path.write_text(MARKED, encoding="utf-8")
    unreadable.write_text("import no_such_module", encoding="utf-8")
    *parts, found = marked_tests.run([path, unreadable], "gpu", seconds=60.0, patience=1.5, root=tmp_path)
    assert len(parts) >= 9 and "error" not in found and found["not_run"] == []
    assert (found["collected"], found["passed"], found["skipped_tests"], found["failed"]) == (8, 2, 1, 6)
    why = {name.rpartition("/")[2].rpartition("::")[2]: text for name, text in found["failures"].items()}
    assert why["test_hangs"] == "no end after 2 s" and why["test_dies[2]"] == "its process ended with code 2"
    assert "no" in why["test_wrong"] and "illegal memory access" in why["test_ruins"]
    assert "no_such_module" in why["test_unreadable.py"]
    lines = marked_tests.lines({"tests": found})
    assert lines[0] == "gpu tests: 2 passed, 6 failed, 1 skipped of 8" and len(lines) == 6
    nothing = list(marked_tests.run([unreadable], "gpu", seconds=60.0, patience=1.5, root=tmp_path))[-1]
    assert nothing["error"].startswith("pytest collected no test")


def test_the_files_with_tests_for_a_gpu_are_found():
    names = [path.name for path in marked_tests.marked("gpu")]
    assert "test_capture.py" in names and "test_maml.py" in names and "test_rng.py" not in names


def test_how_far_agents_are_apart():
    first = [torch.zeros(2, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)]
    here = [torch.tensor([4.0, 1e-9], dtype=torch.float64), torch.tensor([3.0], dtype=torch.float64)]
    there = [torch.tensor([4.0, 0.04], dtype=torch.float64), torch.tensor([3.03], dtype=torch.float64)]
    relative, of_step = agreement.apart(here, there, first)
    assert relative == pytest.approx(0.01) and of_step == pytest.approx(0.05 / 5.0)
    assert agreement.apart(here, here, first) == (0.0, 0.0)
    broken = [torch.full((2,), torch.nan, dtype=torch.float64), there[1]]
    assert not agreement.apart(here, broken, first)[0] <= agreement.BOUND


def test_another_action_is_seen():
    config, family = agreement.agents(tiny=True)["RL² gru"]
    agent = config.build(family, 0, CPU)
    trial = agreement.play(agent, family, CPU)
    action = trial[0].acted.action.clone()
    action[1, 3] = (action[1, 3] + 1) % 5
    other = [trial[0]._replace(acted=trial[0].acted._replace(action=action))]
    assert agreement.otherwise(trial, other) == pytest.approx(1 / 8) and agreement.otherwise(trial, trial) == 0.0


def test_a_recording_that_fails_names_the_line_that_was_to_blame():
    def record(leaves: Any, spec: Any) -> None:
        try:
            row_numbers(None)  # type: ignore[arg-type]
        except AttributeError as error:
            raise RuntimeError("operation failed due to a previous error during capture") from error

    captured, noted = Captured(lambda x: x, CPU), []
    captured._record = record  # type: ignore[method-assign, assignment]
    recordings.watch(captured, noted.append)
    with pytest.raises(RuntimeError, match="previous error"):
        captured._record([], None)  # type: ignore[arg-type]
    assert noted[0].startswith("AttributeError: 'NoneType'") and " at memory.py:" in noted[0]


def test_what_was_recorded_is_told_part_by_part():
    good, bad = {"recordings": 1, "why_not": None, "where": None}, {"recordings": 0, "why_not": "no", "where": "x.py:1"}
    results = {
        "RL²": {"parts": {"Rollouts": good, "Minibatches": bad}},
        "RL² with memory lstm": {"parts": {"Rollouts": good}},
        "RL² with memory rnn": {"parts": {"Rollouts": good}},
        "RL² with memory none": {"error": "lost"},
        "ES": {"parts": {"Rollouts": good}},
        "SAC": {"parts": {"Rollouts": good, "Gradient steps": good}},
    }
    assert recordings.lines(results) == [
        "RL²: Rollouts recorded; Minibatches NOT recorded: x.py:1",
        "RL² with memory none failed: lost",
        "ES, SAC: all recorded",
        "RL² with memory lstm, rnn: all recorded",
    ]


def test_a_training_told_not_to_be_recorded_says_so(tmp_path: Path):
    made: Callable[[], Any] = lambda: recordings.of_memory("gru", Settings("cpu", True, tmp_path))  # noqa: E731
    found = recordings.recorded(made, 0.0)
    assert found["parts"]["Rollouts"] == {"recordings": 0, "why_not": "cpu has no graphs", "where": None}
    assert "Line searches" not in found["parts"]


class Played(capture.Recording):
    """Stands in for a CUDA graph: it calls its function again."""

    def __init__(self, function: Callable[..., Any], leaves: list[Any], spec: Any) -> None:
        self.call = lambda inputs: function(*pytree.tree_unflatten(inputs, spec))

    def replay(self, leaves: list[Any]) -> Any:
        return self.call(leaves)


@pytest.mark.parametrize("name", ["W1", "W3", "W3ppo"])
def test_what_is_recorded_is_found(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """As on a GPU, with a recorder that refuses one part."""

    def record(self: Captured, leaves: list[Any], spec: Any) -> Played:
        if getattr(self.function, "__name__", "") == "<lambda>":
            raise RuntimeError("stream is capturing")
        return Played(self.function, leaves, spec)

    def make() -> ours.Training:
        training = ours.training(Settings("cpu", True, tmp_path).work(WORKS[name]))
        for part in training.parts.values():
            part.why_not = None
        return training

    monkeypatch.setattr(Captured, "_record", record)
    monkeypatch.setattr(capture, "_on_side_stream", lambda function: function())
    found = recordings.recorded(make, 0.0)["parts"]
    expected = {"W1": ["Minibatches"], "W3": ["Outer steps", "Line searches"], "W3ppo": ["Minibatches"]}[name]
    assert [*found] == ["Rollouts", *expected]
    assert found["Rollouts"]["why_not"] == "stream is capturing" and "RuntimeError" in found["Rollouts"]["where"]
    assert all(recordings.whole(found[part]) for part in expected)


def test_recorded_steps_are_as_many_as_plain_ones():
    work = tiny(WORKS["W5"])
    family = ours.family_of(work)
    actions = ours.random_actions(family, work.steps, work.rows)
    key = rng.key(0)
    replayed = ours.ReplayedSteps(family, family.sample_tasks(key, work.rows), key, actions)
    assert replayed() == ours.build(work, 1)() == work.steps * work.rows
    assert replayed.parts["Rollouts"].why_not == "cpu has no graphs"


def test_copies_are_counted_and_unknown_where_nothing_was_seen():
    seen = {"Memcpy HtoD (Pageable -> Device)": 2, "Memcpy HtoD (Pinned -> Device)": 1, "Memcpy DtoD": 9, "gemm": 4}
    assert kernels.copies(seen) == {"Memcpy HtoD": 3, "Memcpy DtoH": 0} and kernels.copies({}) is None
    result = {"seconds": 0.1, "busy": 0.05, "device": "cuda", "rollout_recorded": True}
    result["top"] = [{"name": "gemm", "seconds": 0.04}]
    said = kernels.text("RL²", result | {"copies_in_rollout": kernels.copies(seen)})
    assert said == "RL²: 100.0 ms, busy 50 %; copies in a rollout: 3 × Memcpy HtoD; 80 % gemm"
    assert "not known" in kernels.text("RL²", result | {"copies_in_rollout": None})


def test_the_share_of_the_peak_is_of_what_the_work_needs():
    peak = floor.Peak(operations=floor.operations(WORKS["W1"]) * 4e6, bytes=14e9)
    assert speed.share(WORKS["W1"], 1e6, peak) == {"share": 0.25}
    assert speed.share(WORKS["W5"], 5e8, peak) == {"share": 0.5}
    assert speed.share(WORKS["W3"], 1e6, peak) == speed.share(WORKS["W1"], 1e6, None) == {"share": None}


def test_what_is_left_out_is_compared_with_the_usual(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    class Pretended(Settings):
        cuda = property(lambda self: True)  # type: ignore[assignment]

    for name in ("synchronize", "max_memory_allocated", "max_memory_reserved"):
        monkeypatch.setattr(torch.cuda, name, lambda: 2**30)
    so_far = report.Report(tmp_path / "gpu.json", {})
    so_far.begin("a", "ceilings")
    so_far.begin("d", "speed")
    so_far.note("a", "fp32", {"operations": 1e9})
    so_far.note("a", "copy", {"bytes": 1e9})
    case = speed.Case("W1", recorded=False)
    so_far.note("d", speed.Case("W1").name, {"median": 1e9})
    settings = Pretended("cpu", True, tmp_path)
    precision, tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        found = speed.measure(case, settings, so_far, 0.0)
        exact = speed.measure(speed.Case("W1", exact=True), settings, so_far, 0.0)
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = tf32
    assert found["usual_over_this"] == pytest.approx(1e9 / found["median"]) and found["share"] is None  # no tf32 known
    assert found["bytes"] == 2**30 and set(found["not_recorded"]) == {"Rollouts", "Minibatches"}
    said = speed.text(case.name, found)
    assert said.startswith("W1 × 512, eager (tiny: 8): ") and "1.00 GiB; as it is trained" in said
    assert exact["share"] == pytest.approx(floor.operations(settings.work(WORKS["W1"])) * exact["median"] / 1e9)
    assert "not recorded: Rollouts (cpu has no graphs)" in speed.text("W1 × 512, fp32", exact)


def test_jax_is_kept_to_the_device_and_named_once_where_it_is_not_installed():
    assert {peer.contender(case.work).module for case in peer.CASES} == {
        "benchmarks.peers.jax_ppo_gru",
        "benchmarks.peers.jax_stepping",
    }
    assert peer.variables("cuda")["JAX_PLATFORMS"] == "cuda" and peer.variables("cpu")["JAX_PLATFORMS"] == "cpu"
    assert peer.variables("cuda")["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    ours_too = {case.name for case in speed.CASES}
    assert {case.name for case in peer.CASES} <= ours_too


def test_peers_need_nothing_but_jax():
    """Neither do the modules that they and their process import from here."""
    for name in ("benchmarks.peers.jax_ppo_gru", "benchmarks.peers.jax_stepping", "benchmarks.contender"):
        text = (ROOT / f"{name.replace('.', '/')}.py").read_text("utf-8")
        imported = {
            alias.name if isinstance(node, ast.Import) else str(node.module)
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        outside = {module.partition(".")[0] for module in imported} - set(sys.stdlib_module_names)
        assert outside <= {"jax", "benchmarks"} and {m for m in imported if "benchmarks" in m} <= {"benchmarks.works"}


def test_the_table_fits(tmp_path: Path):
    parts = [("a", ["first"]), ("d", [f"line {n} " + "x" * 300 for n in range(60)]), ("h", ["last"])]
    lines = report.table("title", parts, tmp_path / "gpu.json")
    assert len(lines) == report.LINES and max(map(len, lines[:-1])) <= report.WIDTH + len("(d) ")
    assert lines[1] == "(a) first" and lines[-2] == "(h) last" and "24 lines more" in lines[-1]


def test_the_file_is_whole_after_every_result(tmp_path: Path):
    one = report.Report(tmp_path / "deep" / "gpu.json", {"device": "cpu"})
    one.begin("d", "speed")
    one.note("d", "x", {"value": float("nan")})
    assert found_in(tmp_path / "deep")["sections"]["d"]["results"]["x"] == {"value": None}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["gpu.json"]


def test_a_run_is_followed_for_so_long_and_no_longer(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text('{"iteration": 1}\n{"iter', encoding="utf-8")
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    begun = time.monotonic()
    assert list(records(tmp_path / "metrics.jsonl", process, limit=0.3)) == [{"iteration": 1}]
    assert time.monotonic() - begun < 10.0 and process.poll() is None
    process.kill()
    process.wait()


def test_sections_are_eight_in_order_and_inline_is_as_good():
    assert "".join(one.letter for one in SECTIONS) == "abcdefgh"
    assert all(hasattr(one.module, "items") and hasattr(one.module, "text") for one in SECTIONS)
    worker = Inline([Item("x", lambda seconds: {"value": seconds})])
    assert list(worker.ask(0, 2.0, 4.0)) == [{"value": 2.0}]
