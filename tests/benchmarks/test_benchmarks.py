"""The benchmark harness, without peers: its protocol, its count of steps, its table."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import contender, ours, run, stepping, works
from benchmarks.memory import peak
from benchmarks.time_to_target import Target, reach, row
from benchmarks.works import CONTENDERS, Contender, find, tiny

RESULT: dict[str, Any] = {
    "date": "2026-01-02T03:04:05+00:00",
    "cpu": "A processor",
    "cores": 1,
    "rounds": 3,
    "works": {
        "W1": {
            "title": "a work",
            "contenders": {
                "metarl": {"versions": {"torch": "2"}, "differs": "", "steps_per_second": [300.0, 200.0, 100.0]},
                "slow": {"versions": {"jax": "1"}, "differs": "It is slow.", "steps_per_second": [90.0, 80.0, 100.0]},
                "absent": {"missing": "No module named 'absent'"},
            },
        }
    },
}


@pytest.mark.parametrize("name", ["W1", "W2", "W3", "W3ppo", "W5"])
def test_ours_counts_the_steps_of_a_work(name: str):
    work = tiny(find(name))
    expected = {"W1": 8 * 2, "W2": 8 * 2 * 5, "W3": 8 * 3 * 5 * 2, "W3ppo": 8 * 3 * 5 * 2, "W5": 8 * 2 * 5}[name]
    call = ours.build(work, 1)
    steps = call()
    # A point may reach its goal before the horizon, though hardly in so few steps.
    assert expected - 2 * work.horizon <= steps <= expected


def test_a_round_lasts_as_long_as_asked_and_answers_line_by_line():
    answers = io.StringIO()
    contender.serve(lambda: 7, io.StringIO("0\n0.01\n"), answers)
    first, second = map(json.loads, answers.getvalue().splitlines())
    assert first["steps"] == 7 and first["calls"] == 1
    assert second["seconds"] >= 0.01 and second["steps"] == 7 * second["calls"]


def test_the_harness_measures_ours_and_writes_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "results" / "file.json"
    run.main(["--work", "W5", "--tiny", "--rounds", "2", "--seconds", "0", "--out", str(out)])
    assert "metarl" in capsys.readouterr().out
    result = json.loads(out.read_text("utf-8"))
    entry = result["works"]["W5"]["contenders"]["metarl"]
    assert [r["steps"] for r in entry["rounds"]] == [80, 80] and len(entry["steps_per_second"]) == 2
    assert entry["versions"]["torch"] and result["cpu"] and result["cores"] == 1 and result["rounds"] == 2
    run.main(["--table", str(out)])
    assert "| Stepping, Navigation2D, 4096 rows | metarl |" in capsys.readouterr().out


def test_peers_that_cannot_run_are_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    absent = Contender("absent", "benchmarks.peers.no_such_peer", ("W1",), "")
    elsewhere = Contender("elsewhere", "benchmarks.ours", ("W1",), "", peers_python=True)
    # The processes read the list of contenders themselves: these two are known by another one's number.
    monkeypatch.setattr(run, "contenders", lambda work, peers: [absent, elsewhere])
    monkeypatch.setattr(run, "CONTENDERS", (None,) * len(CONTENDERS) + (absent, elsewhere))
    entries = run.measure(find("W1"), True, 1, 0.0, run.pinned(1), str(tmp_path / "python"), small=True)["contenders"]
    assert entries["absent"]["missing"].startswith("failed: IndexError")
    assert "No such file" in entries["elsewhere"]["missing"]


def test_a_module_that_is_not_installed_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(contender, "CONTENDERS", (Contender("absent", "no_such_module", ("W1",), ""),))
    monkeypatch.setattr(sys, "argv", ["contender", "0", "W1"])
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # put back what `main` turns to standard error
    monkeypatch.delenv("METARL_CORES", raising=False)
    contender.main()
    assert json.loads(capsys.readouterr().out) == {"missing": "No module named 'no_such_module'"}


@pytest.mark.parametrize("given", [None, "an empty folder"])
def test_a_peer_without_its_checkout_is_missing(
    given: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    peer = Contender("peer", "benchmarks.peers.pytorch_maml_rl", ("W3",), "")
    monkeypatch.setattr(contender, "CONTENDERS", (peer,))
    monkeypatch.setattr(sys, "argv", ["contender", "0", "W3"])
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # put back what `main` turns to standard error
    monkeypatch.delenv("METARL_CORES", raising=False)
    monkeypatch.delenv("PYTORCH_MAML_RL", raising=False)
    if given is not None:
        monkeypatch.setenv("PYTORCH_MAML_RL", str(tmp_path))
    contender.main()
    expected = (
        "must be the path of a checkout of tristandeleu/pytorch-maml-rl."
        if given is None
        else f"must be a folder that contains maml_rl, got {tmp_path}."
    )
    assert json.loads(capsys.readouterr().out) == {"missing": f"PYTORCH_MAML_RL {expected}"}


def test_the_table_of_a_result():
    lines = run.markdown(RESULT).splitlines()
    assert lines[2] == "| a work | metarl | 200 | 100 – 300 |  |"
    assert lines[3] == "| a work | slow | 90 | 80 – 100 | 2.22 |"
    assert lines[4] == "| a work | absent | – | No module named 'absent' |  |"
    assert "A processor, 1 core(s), 2026-01-02; medians of 3" in lines[6] and "jax 1, torch 2" in lines[6]
    assert lines[8] == "- slow: It is slow."


def test_works_and_contenders_fit_together():
    assert {name for c in CONTENDERS for name in c.works} - {"*"} <= set(works.WORKS)
    assert len({c.name for c in CONTENDERS}) == len(CONTENDERS)
    named = [c.name for c in works.contenders(find("W3"), peers=True)]
    assert named == ["metarl", "plain per-task PyTorch loop", "tristandeleu/pytorch-maml-rl"]
    assert [c.name for c in works.contenders(find("W3"), peers=False)] == ["metarl"]
    names = [work.name for work in works.expand(["W1", works.FAMILIES])]
    assert names[0] == "W1" and "W5:metarl/GridNavi-v0" in names
    with pytest.raises(ValueError, match="Known: W1"):
        find("W9")


def test_every_peer_is_a_file():
    for peer in CONTENDERS:
        assert (run.ROOT / f"{peer.module.replace('.', '/')}.py").exists() and (peer.differs or peer.name == "metarl")


def test_wrong_arguments_are_one_sentence(capsys: pytest.CaptureFixture[str]):
    for arguments, text in ((["--work", "W9"], "Unknown work"), (["--threads", "9999"], "threads must lie")):
        with pytest.raises(SystemExit):
            run.main(arguments)
        assert text in capsys.readouterr().err


def test_time_to_target_counts_training_alone_and_stops_when_it_is_reached():
    quick = ("--total_iterations=4", "--eval_every=1", "--eval_tasks=20", "--agent.meta_batch_size=8")
    easy = Target("rl2_bernoulli_bandit_n10", "easy", "eval/valid/score", 0.0, (), quick)
    found = reach(easy, seed=3, threads=1)
    assert found.iterations == 1 and found.env_steps == 80 and found.seconds > 0 and found.value > 0
    never = reach(easy._replace(value=1e9), seed=3, threads=1)
    assert never.iterations == 4 and never.env_steps == 320 and never.value is None
    assert "not reached" in row(easy, [never, found, never]) and "**" in row(easy, [found, never, found])


def test_peak_memory_is_that_of_the_run_alone():
    wait = "import time; time.sleep(0.3)"
    small = peak([sys.executable, "-c", wait])
    large = peak([sys.executable, "-c", f"x = bytearray(300_000_000); del x; {wait}"])
    assert small < 60 and 280 < large - small < 320 and peak([sys.executable, "-c", wait]) < 60
    with pytest.raises(RuntimeError, match="no such thing"):
        peak([sys.executable, "-c", "import sys; sys.exit('no such thing')"])


def test_the_cost_of_stepping_every_family(tmp_path: Path):
    found = {"metarl/GridNavi-v0": {4: stepping.cost("metarl/GridNavi-v0", 4, rounds=2, steps=3), 8: 2e-6}}
    assert 0.0 < found["metarl/GridNavi-v0"][4] < 1.0
    assert "| `metarl/GridNavi-v0` |" in stepping.table(found) and "4.0 M" in stepping.table(found)
    stepping.draw(found, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5_000
