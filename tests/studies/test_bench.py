"""The benchmark: its protocol, rows as data, the files of others, the board and the page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metarl
from benchmarks.presets import NOT_MEASURED
from metarl.cli.main import main
from metarl.evaluation.provenance import versions
from metarl.studies.bench import play, protocol, rows
from metarl.studies.bench.board import Board, joined
from metarl.studies.bench.page import page
from metarl.studies.bench.protocol import PROBLEMS
from metarl.studies.bench.rows import Row
from metarl.training import checkpoint
from metarl.training.config import parsing

STORED = Path(__file__).parents[2] / "benchmarks" / "results" / "bench.json"


def row(agent: str = "rl2", problem: str = "gridnavi", seed: int = 1, last: float = 9.0, **changes: Any) -> Row:
    values = (last + np.linspace(-1.0, 1.0, 21)).tolist()
    made = Row(
        agent, problem, seed, False, ["episode 1", "episode 2"], [0.0, 1.0], [0.0, 15.0], [4.0, last], [3.0, last - 1],
        [5.0, last + 1], values, 0.1, -1.0, 11.0, 3, 1000, 5.0,
        [[100.0, 1.0, 2.0], [500.0, 3.0, 5.0], [1000.0, 4.0, 9.0]],
        "a processor, 2 cores", {"metarl": "1"},
    )  # fmt: skip
    return replace(made, **changes)


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems_are_those_of_the_presets(name: str):
    """An agent is evaluated on the family that its preset trains on, so the spaces fit and the tasks are held out."""
    problem = PROBLEMS[name]
    found = [agent for agent in protocol.LEARNERS if play.preset_of(agent, problem)]
    assert "rl2" in found
    for agent in found:
        config = parsing.read(f"{agent}_{name}")
        if config.family.episodes_per_trial == problem.family().episodes_per_trial:
            assert repr(config.family).replace(", train_tasks=100", "") == repr(problem.family()).replace(
                ", train_tasks=100", ""
            ), agent
        assert (config.train_split == "all") <= (problem.split == "all"), f"{agent} would be tested on training tasks"


def test_every_problem_of_the_small_suite_has_an_optimum():
    assert len(protocol.problems_of("small")) == 8
    for problem in protocol.problems_of("small"):
        family = problem.family()
        assert family.oracle(family.sample_tasks(metarl.core.rng.key(0), 2, problem.split)) is not None
    with pytest.raises(ValueError, match="Did you mean 'small'"):
        protocol.problems_of("smal")


def test_rows_are_read_as_they_were_written(tmp_path: Path):
    every = [row(), row("maml", rounds=True, noise=None, oracle=None, train_seconds=None)]
    rows.write(every, tmp_path / "x.json")
    assert rows.read(tmp_path / "x.json") == every


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"agent": "<script>"}, "has an invalid 'agent'"),
        ({"agent": ""}, "has an invalid 'agent'"),
        ({"problem": "gridnav"}, "Did you mean 'gridnavi'"),
        ({"problem": 3}, "Unknown problem"),
        ({"seed": -1}, "has an invalid 'seed'"),
        ({"seed": True}, "has an invalid 'seed'"),
        ({"mean": [1.0]}, "has an invalid 'mean'"),
        ({"mean": "12"}, "has an invalid 'mean'"),
        ({"labels": []}, "has an invalid "),
        ({"last": []}, "has an invalid 'last'"),
        ({"last": [0.0] * 3000}, "has an invalid 'last'"),
        ({"random": None}, "has an invalid 'random'"),
        ({"noise": -1.0}, "has an invalid 'noise'"),
        ({"training": [[1.0]]}, "has an invalid 'training'"),
        ({"training": 3}, "has an invalid 'training'"),
        ({"versions": {"a": 1}}, "has an invalid 'versions'"),
        ({"hardware": "x" * 1000}, "has an invalid 'hardware'"),
        ({"more": 1}, "has an unknown field"),
    ],
    ids=str,
)
def test_a_wrong_row_of_others_is_named(change: dict[str, Any], sentence: str, tmp_path: Path):
    rows.write([row()], tmp_path / "x.json")
    data = json.loads((tmp_path / "x.json").read_text())
    data["rows"][0] |= change
    (tmp_path / "x.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=re.escape(sentence)) as found:
        rows.read(tmp_path / "x.json")
    assert "\n" not in str(found.value) and len(str(found.value)) < 700


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "cannot be read as JSON"),
        ("[]", "is not a results file"),
        ("{" * 100_000, "cannot be read as JSON"),
        ('{"format": "metarl-bench", "version": 99, "rows": []}', "from version 1 of the benchmark, got 99"),
        ('{"format": "metarl-bench", "version": 1, "rows": 3}', "is not a results file"),
        ('{"format": "metarl-bench", "version": 1, "rows": [3]}', "must be a JSON object"),
        ('{"format": "metarl-bench", "version": 1, "rows": [{}]}', "lacks"),
        ('{"format": "metarl-bench", "version": 1, "rows": [{"random": NaN}]}', "cannot be read as JSON"),
        ('{"format": "metarl-bench", "version": 1, "rows": [' + "{}," * 10_000 + "{}]}", "more than 10,000 rows"),
    ],
    ids=range(9),
)
def test_a_wrong_file_of_others_is_named(text: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "x.json").write_text(text)
    assert main(["bench", "--no_training", "--add", str(tmp_path / "x.json"), "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert sentence in err and err.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--suite", "big"], "Unknown suite: 'big'"),
        (["--agents", "rl3"], "Unknown agent: 'rl3'"),
        (["--problems", "gridnav"], "Did you mean 'gridnavi'"),
        (["--seeds", "0"], "seeds must be at least 1"),
        (["--add", "nowhere.json"], "There is no file"),
        (["--agents", "es", "--problems", "tmaze", "--no_training"], "Nothing was measured"),
    ],
)
def test_mistakes_are_one_sentence(words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "--runs", str(tmp_path), *words]) == 2
    err = capsys.readouterr().err
    assert sentence in err and err.count("\n") == 1


def test_the_same_result_twice_is_refused(tmp_path: Path):
    rows.write([row()], tmp_path / "x.json")
    with pytest.raises(ValueError, match="two results of 'rl2' on 'gridnavi' with seed 1"):
        joined([row()], [tmp_path / "x.json"])
    assert len(joined([row(seed=2)], [tmp_path / "x.json"])) == 2


def test_the_board_ranks_by_the_last_point():
    every = [row(agent, problem, last=last) for problem in ("gridnavi", "darkroom") for agent, last in
             (("good", 9.0), ("bad", 2.0))]  # fmt: skip
    every.append(row("half", last=10.0))
    board = Board(every)
    suite = board.suite()
    assert suite is not None and suite.agents == ["good", "bad"], "half was measured on one problem only"
    ranks = {each["agent"]: each["rank"][0] for each in suite.summary()}
    assert ranks == {"good": 1.0, "bad": 2.0}
    assert suite.means[0] == pytest.approx([10.0 / 12.0] * 2)
    text = board.markdown()
    grid = text[text.index("## gridnavi") : text.index("## darkroom")]
    assert grid.index("| half |") < grid.index("| good |") < grid.index("| bad |") and "0.833" in grid


def test_problems_without_an_optimum_are_listed_apart():
    board = Board([row(), row(problem="cartpole", oracle=None)])
    suite = board.suite()
    assert suite is not None and list(suite.curves) == ["gridnavi"] and "no known optimum" in board.markdown()
    alone = Board([row(problem="cartpole", oracle=None)])
    assert alone.suite() is None and "No agent was measured" in page([row(problem="cartpole", oracle=None)])


def test_the_page_needs_no_network():
    text = page([row(), row("maml", last=5.0), row("maml", seed=2, last=6.0)])
    assert text.count("<h2>") == 5 and "Plotly" in text
    tags = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert "http" not in tags and "src=" not in tags, "nothing is loaded from elsewhere"
    assert 'src="http' not in text
    assert len(text) < 12e6


def test_a_surface_is_of_a_seed_that_has_a_history():
    shipped, trained = row(training=[]), row(seed=2)
    assert "rl2 on gridnavi, seed 2" in page([shipped, trained])
    assert "What does a return cost?" not in page([shipped])


def test_the_command_measures_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["bench", "--agents", "random", "rl2", "--problems", "bernoulli_bandit_n10", "tmaze", "--no_training"]
    assert main([*words, "--runs", str(tmp_path)]) == 0
    first = capsys.readouterr().out
    assert first.count("evaluating") == 4 and "mean rank" in first
    assert (tmp_path / "leaderboard.html").exists() and "tmaze" in (tmp_path / "leaderboard.md").read_text()
    found = rows.read(tmp_path / "results.json")
    assert {each.agent for each in found} == {"random", "rl2"}
    assert all(each.versions == versions() and each.train_steps > 0 for each in found if each.agent == "rl2")
    assert main([*words, "--runs", str(tmp_path)]) == 0
    assert "evaluating" not in capsys.readouterr().out
    other = tmp_path / "theirs.json"
    rows.write([replace(each, agent="theirs") for each in found if each.agent == "rl2"], other)
    assert main([*words, "--runs", str(tmp_path), "--add", str(other)]) == 0
    assert "theirs" in (tmp_path / "leaderboard.md").read_text()


def test_what_is_not_trained_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With the numbers of a small run, whose folder then has what the surface is made of."""
    run = play.run

    def small(preset: str, **options: Any) -> Any:
        agent = {"meta_batch_size": 8, "hidden_size": 4}
        short = {"total_iterations": 4, "eval_every": 2, "eval_tasks": 4, "final_eval_tasks": 4, "num_threads": 1}
        return run(preset, agent=agent, **short, **options)

    monkeypatch.setattr(play, "run", small)
    (found,) = play.play(["rl2"], [PROBLEMS["tmaze"]], 2, tmp_path, tmp_path, False, lambda text: None)
    assert found.seed == 1, "of the package; the second seed was never trained"
    both = play.play(["rl2"], [PROBLEMS["tmaze"]], 2, tmp_path, tmp_path, True, lambda text: None)
    assert [each.seed for each in both] == [1, 2] and both[0] == found
    assert both[1].train_steps == 4 * 8 * PROBLEMS["tmaze"].family().horizon and both[1].train_seconds
    steps = [each[0] for each in both[1].training]
    assert steps == sorted(steps) and len(both[1].training) >= 1


@pytest.mark.parametrize(
    ("agent", "problem"), [("rl2", "bernoulli_bandit_n10"), ("rl2", "tmaze"), ("random", "gridnavi")]
)
def test_a_slice_agrees_with_the_stored_results(agent: str, problem: str, tmp_path: Path):
    """The same agents on the same tasks with the same noise; a last bit may turn a sampled action."""
    stored = {(each.agent, each.problem, each.seed): each for each in rows.read(STORED)}
    (now,) = play.play([agent], [PROBLEMS[problem]], 1, tmp_path, tmp_path, False, lambda text: None)
    then = stored[agent, problem, now.seed]
    assert now.labels == then.labels and now.repeats == then.repeats and len(now.last) == len(then.last)
    assert now.random == pytest.approx(then.random, rel=1e-4, abs=1e-4)
    error = np.std(now.last) / np.sqrt(len(now.last)) + 1e-3
    assert abs(now.mean[-1] - then.mean[-1]) < 0.5 * error


def test_stored_results_cover_the_agents_of_the_package():
    stored, shipped = {(each.agent, each.problem) for each in rows.read(STORED)}, checkpoint.pretrained()
    for problem in PROBLEMS.values():
        for agent in protocol.LEARNERS:
            preset = play.preset_of(agent, problem)
            costly = agent in ("ppo", "recurrent_ppo")  # train on each task, so they are measured on request
            if preset is not None and preset not in NOT_MEASURED and not costly and f"pretrained:{preset}" in shipped:
                assert (agent, problem.name) in stored, f"{preset}: metarl bench --suite full --no_training …"
