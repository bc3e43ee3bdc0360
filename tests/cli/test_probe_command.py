"""`metarl probe`: a table, four files, and mistakes as one sentence."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from small_families import Corridor

import metarl
from metarl.agents import RL2Config
from metarl.agents.belief import BeliefConfig
from metarl.cli.probe import main
from metarl.evaluation.probing import probe
from metarl.report.console import text_of
from metarl.report.probing.files import COLUMNS
from metarl.report.probing.table import probe_table
from metarl.report.table import width_of

AGENT = "pretrained:rl2_bernoulli_bandit_n10"
SMALL = ["--tasks", "60", "--steps", "0", "3", "9", "--device", "cpu"]
FILES = ["probe.csv", "probe.json", "probe.png", "table.txt"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_table_and_files_that_agree(capsys: pytest.CaptureFixture[str]):
    assert main([AGENT, *SMALL]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Decodable does not mean used" in shown and "fitted to 40 trials and scored on 20" in shown
    (out,) = Path("runs/probe_rl2_bernoulli_bandit_n10").iterdir()
    assert out.name == "test_last_200_tasks_60_seed_0_steps_0_3_9"
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert (out / "probe.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((out / "probe.json").read_text())
    rows = list(csv.DictReader((out / "probe.csv").read_text().splitlines()))
    assert tuple(rows[0]) == COLUMNS and [row["step"] for row in rows] == [*"039", "all"] * 2
    assert found["steps"] == [0, 3, 9] and {*found["scores"]} == {"belief", "task"}
    assert float(rows[1]["score"]) == found["scores"]["belief"]["memory"]["mean"][1] > 0.5
    assert not rows[0]["score"] and found["scores"]["belief"]["memory"]["mean"][0] is None, "nothing is known yet"


def test_what_is_asked_names_the_folder_and_the_same_is_written_again():
    assert main([AGENT, *SMALL, "--out", "a", "--quiet"]) == main([AGENT, *SMALL, "--out", "b", "--quiet"]) == 0
    assert Path("a/probe.csv").read_bytes() == Path("b/probe.csv").read_bytes()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_table_fits(width: int):
    agent = metarl.load(AGENT)
    table = probe_table(probe(agent, tasks=60, steps=[9]), width)
    assert width_of(table) <= width
    assert max(map(len, text_of(table, width).splitlines())) <= width


@pytest.fixture
def runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run directories of untrained agents."""
    bandit = metarl.make("metarl/BernoulliBandit-v0", episodes_per_trial=4)
    small = RL2Config(hidden_size=8)
    agents = {
        name: config.build(family, 0, torch.device("cpu"))
        for name, config, family in (
            ("RL2", small, bandit), ("Belief", BeliefConfig(), bandit), ("Corridor", small, Corridor()),
        )
    }  # fmt: skip
    for name in agents:
        (folder / name).mkdir()
    monkeypatch.setattr("metarl.cli.probe.load", lambda name, *_: agents[name])


@pytest.mark.usefixtures("runs")
def test_a_run_with_a_belief_agent_next_to_it(capsys: pytest.CaptureFixture[str]):
    assert main(["RL2", "--tasks", "60", "--belief", "Belief", "--device", "cpu"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Return of a trial:" in shown and "KL in" in shown
    (out,) = Path("RL2/probes").iterdir()
    found = json.loads((out / "probe.json").read_text())
    assert found["lost"]["low"] <= found["lost"]["lost"] <= found["lost"]["high"]
    assert min(found["divergence"]["mean"]) >= 0.0
    rows = list(csv.DictReader((out / "probe.csv").read_text().splitlines()))
    assert {row["target"] for row in rows} == {"belief", "task", "actions"}


@pytest.mark.usefixtures("runs")
def test_a_family_without_a_belief_says_so(capsys: pytest.CaptureFixture[str]):
    assert main(["Corridor", "--tasks", "60", "--split", "train", "--device", "cpu"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "The family has no exact belief about these tasks, so only the task is probed." in shown


@pytest.mark.parametrize(
    "words, sentence",
    [
        ([AGENT, "--split", "tset"], "Unknown split of BernoulliBandit: 'tset'."),
        ([AGENT, "--tasks", "0"], "tasks must be at least 1, got 0."),
        ([AGENT, "--tasks", "10"], "tasks must be at least 60, got 10."),
        ([AGENT, "--steps", "10"], "steps must be numbers of actions from 0 to 9, got [10]."),
        ([AGENT, "--part", "output"], "Unknown part of the memory of RL2: 'output'."),
        ([AGENT, "--belief", AGENT], "The belief agent must act on the exact belief, as Belief does, got RL2."),
        ([AGENT, "--seed", "-1"], "A seed must be an integer from 0 to 2^63 - 1"),
        (["pretrained:maml_bernoulli_bandit"], "MAML (PPO) has no memory of the trial that can be probed;"),
        (["pretrained:nothing"], "Unknown trained agent: 'pretrained:nothing'."),
        (["nowhere"], "There is no run directory 'nowhere'"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]):
    assert main([*words, "--device", "cpu"]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith(f"metarl probe: {sentence}") and err.count("\n") == 1, err
