"""Comparisons: the numbers by hand, the same tasks for everyone, and the program."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metarl.agents.reference.catalogue import baseline
from metarl.cli.compare import main
from metarl.cli.contenders import Line, check_families, compare, lines
from metarl.envs import GridNavi, Navigation2D
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.drawing.colours import colour
from metarl.evaluation.evaluator import evaluate
from metarl.report.comparison import Comparison
from metarl.train import main as train


def curve(returns, random=0.0, oracle=1.0, split="test") -> AdaptationCurve:
    array = np.asarray(returns, dtype=np.float32)
    _, tasks, points = array.shape
    return AdaptationCurve(
        returns=array,
        episodes=np.arange(points, dtype=np.float64),
        env_steps=10.0 * np.arange(points),
        labels=tuple(f"episode {n + 1}" for n in range(points)),
        random=np.full(tasks, random, dtype=np.float32),
        oracle=np.full(tasks, oracle, dtype=np.float32),
        agent="A",
        family="F()",
        split=split,
        greedy=False,
        eval_seed=0,
    )


SLOW = curve([[[0.0, 0.2], [0.0, 0.4]]])
FAST = curve([[[0.5, 1.0], [0.3, 0.9]], [[0.5, 1.0], [0.3, 0.1]]])


def test_the_rows_by_hand():
    rows = Comparison({"slow": {"test": SLOW}, "fast": {"test": FAST}}).rows("test")
    assert [row["agent"] for row in rows] == ["fast", "slow"], "the best last point first"
    fast, slow = rows
    assert fast["first"] == pytest.approx(0.4) and fast["last"] == pytest.approx(0.75)
    assert (fast["seeds"], slow["seeds"], fast["tasks"]) == (2, 1, 2) and fast["env_steps"] == 10.0
    assert slow["normalised"] == pytest.approx(0.3) and slow["beats"] is None
    # Task 1: both seeds win; task 2: one of two.
    assert fast["beats"][0] == pytest.approx(0.75) and fast["beats"][1] <= 0.75 <= fast["beats"][2]
    assert fast["to_90"] is None and slow["steps_to_90"] is None
    # Means 0 and .3 against 1: 1 and .7 are lost.
    assert slow["cumulative_regret"] == pytest.approx(1.7) and slow["regret_per_episode"] == pytest.approx(0.7)
    better = Comparison({"x": {"test": curve([[[0.0, 0.95]]])}}).rows("test")[0]
    assert better["to_90"] == 1.0 and better["steps_to_90"] == 10.0


def test_normalised_last_points_by_hand():
    scores = curve([[[0.0, -60.0], [0.0, -10.0]]], random=-60.0, oracle=-10.0).last_normalised()
    np.testing.assert_allclose(scores, [[0.0, 1.0]])
    assert curve([[[0.0]]], random=1.0, oracle=1.0).last_normalised() is None


def test_the_gap_is_train_minus_the_others():
    train = curve([[[0.0, 0.9], [0.0, 0.7]]], split="train")
    gaps = Comparison({"a": {"train": train, "test": SLOW}, "b": {"test": SLOW}}).gaps()
    assert gaps.keys() == {"a"} and gaps["a"]["test"][0] == pytest.approx(0.5)


def test_other_tasks_are_refused():
    with pytest.raises(ValueError, match="'b' was not evaluated on the same tasks"):
        Comparison({"a": {"test": SLOW}, "b": {"test": curve([[[0.0, 0.2], [0.0, 0.4]]], oracle=2.0)}})
    with pytest.raises(ValueError, match="at least one agent"):
        Comparison({})


def test_other_seeds_and_unknown_tasks_are_refused():
    for changes, why in (
        ({"eval_seed": 1}, "their evaluation seeds are 1 and 0"),
        ({"task_values": {"goal": np.ones((2, 1))}}, "the tasks differ"),
    ):
        first = replace(SLOW, oracle=None, task_values={"goal": np.zeros((2, 1))})
        with pytest.raises(ValueError, match=why):
            Comparison({"a": {"test": first}, "b": {"test": replace(first, **changes)}})
    unknown = replace(SLOW, oracle=None, eval_seed=None)
    with pytest.raises(ValueError, match="their tasks were not recorded"):
        Comparison({"a": {"test": unknown}, "b": {"test": unknown}})


def test_the_difference_is_paired_and_wins_need_as_many_repeats():
    fast, slow = Comparison({"slow": {"test": SLOW}, "fast": {"test": FAST}}).rows("test")
    assert slow["difference"] is None and fast["difference"][0] == pytest.approx(0.75 - 0.3)
    assert fast["difference"][1] < 0.45 < fast["difference"][2]
    more = Comparison({"slow": {"test": SLOW}, "fast": {"test": replace(FAST, repeats=20)}}).rows("test")[0]
    assert more["beats"] is None and more["difference"] == fast["difference"]


def test_where_no_optimum_is_known_there_are_no_empty_panels():
    compared = Comparison({"a": {"test": replace(SLOW, oracle=None)}, "b": {"test": replace(FAST, oracle=None)}})
    assert len(compared.figure().axes) == 1
    assert len(Comparison({"a": {"test": SLOW}}).figure().axes) == 3


def test_rounds_are_steps_and_the_optimum_is_black():
    rounds = replace(FAST, rounds=True, labels=("0 gradient steps", "1 gradient step"))
    axes = Comparison({"RL2": {"test": SLOW}, "MAML": {"test": rounds}}).figure().axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["MAML"].get_drawstyle() == "steps-post" and lines["RL2"].get_drawstyle() == "default"
    assert lines["known-task optimum"].get_color() == "black"
    assert lines["RL2"].get_color() == colour("RL2")


def test_an_agent_that_takes_long_may_play_the_first_tasks_alone():
    """Pairs are made of the tasks that both have; the bounds are those of all tasks."""
    three = curve([[[0.0, 0.1], [0.0, 0.5], [0.0, 1.0]]])
    one = curve([[[0.0, 0.2]]])
    comparison = Comparison({"three": {"test": three}, "one": {"test": one}})
    rows = {row["agent"]: row for row in comparison.rows("test")}
    assert (rows["three"]["tasks"], rows["one"]["tasks"]) == (3, 1)
    assert rows["one"]["beats"][0] == 1.0, "on the first task it is better, though its mean is lower"
    with pytest.raises(ValueError, match="same tasks"):
        Comparison({"three": {"test": three}, "one": {"test": curve([[[0.0, 0.2]]], oracle=3.0)}})


def test_files_hold_everything(tmp_path: Path):
    comparison = Comparison({"slow": {"test": SLOW}, "fast": {"test": FAST}}, {"slow": "5 steps"})
    json_path, csv_path, md_path, png_path = comparison.save(tmp_path / "new")
    document = json.loads(json_path.read_text("utf-8"))
    assert document["splits"]["test"]["agents"][0]["agent"] == "fast" and document["budgets"] == {"slow": "5 steps"}
    with csv_path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 + 2 * 2 * 2
    found = [r for r in rows if (r["agent"], r["seed"], r["task"], r["point"]) == ("fast", "1", "1", "episode 2")]
    assert float(found[0]["return"]) == pytest.approx(0.1) and found[0]["env_steps"] == "10"
    text = md_path.read_text("utf-8")
    assert "| fast | 2 |" in text and "5 steps" in text and "(oracle): 1.00" in text
    assert png_path.stat().st_size > 20_000


def test_the_table_fits_a_terminal():
    buffer = io.StringIO()
    compared = Comparison({"a_rather_long_name": {"test": SLOW}, "another_one": {"test": FAST}})
    for width in (60, 80, 120, 200):
        tables = compared.tables("test", width)
        assert (len(tables) == 1) == (width == 200)
        for table in tables:
            Console(file=buffer, width=width).print(table)
        lines = buffer.getvalue().splitlines()
        assert max(map(len, lines)) <= width and "…" not in buffer.getvalue()
        for part in ("0.300 [", "0.450 [", "0.75 [", "1.00"):
            assert any(part in line for line in lines), part
        buffer.seek(0)
        buffer.truncate()


# ---- the program ---------------------------------------------------------------------------------------------------


def test_everyone_has_the_same_tasks_as_alone():
    family = GridNavi()
    agents = {name: baseline(name, family) for name in ("random", "bayes_optimal")}
    comparison = compare([Line(n, [a], family, "") for n, a in agents.items()], ["all"], tasks=30, seed=3)
    for name, agent in agents.items():
        alone = evaluate(agent, family, "all", tasks=30, seed=3)
        np.testing.assert_array_equal(comparison.entries[name]["all"].returns, alone.returns)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "two"
    small = ["--total_iterations=1", "--eval_every=0", "--final_eval_tasks=0", "--num_threads=1", "--seeds=2"]
    small += ["--agent.meta_batch_size=8", "--agent.hidden_size=8", "--agent.num_minibatches=1"]
    assert train(["--config=rl2_gridnavi", *small, f"--run_dir={folder}"]) == 0
    return folder


def test_seeds_are_one_line_and_names_are_unique(seeds: Path):
    found = lines([str(seeds), "pretrained:rl2_gridnavi", "mine=pretrained:rl2_gridnavi"], "cpu")
    assert [(line.name, len(line.agents)) for line in found] == [("two", 2), ("rl2_gridnavi", 2)], (
        "the same configuration, so a second seed of it; but another one than the small runs'"
    )
    separate = lines([str(seeds / "seed_1"), str(seeds / "seed_2")], "cpu")
    assert [(line.name, len(line.agents)) for line in separate] == [("seed_1", 2)]
    assert "384" in separate[0].budget or "environment steps" in separate[0].budget


def test_the_program_prints_and_writes(seeds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    given = [str(seeds), "--baselines", "random", "bayes_optimal", "--tasks", "20", "--split", "all", "--out", str(out)]
    assert main(given) == 0
    shown = capsys.readouterr().out
    assert "bayes_optimal" in shown and "two" in shown and f"tensorboard --logdir {out}" in shown
    rows = json.loads((out / "comparison.json").read_text("utf-8"))["splits"]["all"]["agents"]
    assert rows[0]["agent"] == "bayes_optimal" and {row["seeds"] for row in rows} == {1, 2}
    scalars = EventAccumulator(str(out / "bayes_optimal")).Reload().Scalars("compare/all/return")
    assert len(scalars) == 4 and scalars[0].step == 0


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["nowhere"], "There is no run directory 'nowhere'"),
        (["pretrained:rl2_gridnavi", "--baselines", "gitins"], "Unknown baseline for GridNavi: 'gitins'"),
        (["pretrained:rl2_gridnavi", "--split", "tset"], "Did you mean 'test'"),
        (["pretrained:rl2_gridnavi", "--tasks", "0"], "tasks must be at least 1"),
        (["pretrained:rl2_gridnavi", "--rounds", "0"], "rounds must be at least 1"),
        (["pretrained:rl2_gridnavi", "pretrained:rl2_navigation2d"], "Agents must be for the same tasks: "),
        (
            ["pretrained:rl2_bernoulli_bandit", "pretrained:rl2_dependent_bandit_easy"],
            "Agents must be for the same tasks",
        ),
    ],
)
def test_mistakes_are_one_sentence(given: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([*given, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert sentence in said and len(said.strip().splitlines()) == 1


def test_trials_may_differ_in_length_alone():
    short, long, other = GridNavi(2), GridNavi(4), Navigation2D()
    check_families([Line("a", [], short, ""), Line("b", [], long, "")])
    with pytest.raises(ValueError, match="'c' for Navigation2D"):
        check_families([Line("a", [], short, ""), Line("c", [], other, "")])


def test_a_suite_of_families(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pairs = [(agent, on) for agent in ("RL2", "MAML") for on in ("gridnavi", "navigation2d")]
    runs = [f"{agent}=pretrained:{agent.lower()}_{on}" for agent, on in pairs]
    small = ["--tasks", "6", "--repeats", "1", "--out", str(tmp_path)]
    assert main(["--suite", *runs, *small]) == 0
    shown = capsys.readouterr().out
    assert "2 families" in shown and "RL2" in shown and "MAML" in shown
    rows = json.loads((tmp_path / "suite.json").read_text("utf-8"))["agents"]
    assert [row["agent"] for row in rows] == ["RL2", "MAML"] and len(rows[0]["families"]) == 2
    assert main(["--suite", *runs[:3], *small]) == 2
    assert "needs the same agents" in capsys.readouterr().err
