"""What a run writes can be read back, under the tags that docs/metrics.md explains."""

import io
import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from toy import TOY, Guess

import metarl
from metarl.agents import RL2Config
from metarl.core import rng
from metarl.core.rollout import Rollout, run_trial
from metarl.evaluation.curve import AdaptationCurve
from metarl.training.checkpoint import Counters
from metarl.training.config import parsing as config
from metarl.training.log import hparams
from metarl.training.log.former import keep_lines
from metarl.training.log.logger import Logger
from metarl.training.log.metrics import curve_metrics, memory_metrics, point_tags, trial_metrics
from metarl.training.log.pages import family_card, layout

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def curve(points: int, rounds: bool = False, split: str = "test", tasks: int = 20) -> AdaptationCurve:
    steps = np.arange(points, dtype=np.float64)
    returns = np.random.default_rng(0).normal(steps, 1.0, (1, tasks, points)).astype(np.float32)
    labels = tuple(f"{'round' if rounds else 'episode'} {point + (not rounds)}" for point in range(points))
    bounds = {"random": np.zeros(tasks, np.float32), "oracle": np.full(tasks, points, np.float32)}
    return AdaptationCurve(
        returns, steps, steps, labels, **bounds, agent="A", family="F", split=split, greedy=False, rounds=rounds
    )


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "toy.yaml").write_text(TOY)
    return config.parse(["--config", str(tmp_path / "toy.yaml"), "--eval_splits", "[test]"]).values


def logger(run_dir: Path, values: dict[str, Any], start: Counters = Counters(), **terminal: Any) -> Logger:  # noqa: B008
    run_dir.mkdir(exist_ok=True)
    return Logger(run_dir, values, start, {"command": "python -m *this*"}, Console(width=100, **terminal))


def events(run_dir: Path) -> EventAccumulator:
    return EventAccumulator(str(run_dir), size_guidance={"tensors": 0, "scalars": 0}).Reload()


def trial() -> list[Rollout]:
    family = Guess()
    agent = RL2Config(meta_batch_size=4, hidden_size=4).build(family, 1, torch.device("cpu"))
    return run_trial(agent, family, family.sample_tasks(rng.key(1), 4), rng.key(2))


def test_trial_metrics_are_the_trial_s():
    (rollout,) = rollouts = trial()
    per_episode = rollout.outcome.reward.reshape(3, 2, 4).sum(1).mean(1)  # all episodes of the family have two steps
    metrics = trial_metrics(rollouts, 3)
    assert metrics["train/return_first"] == pytest.approx(float(per_episode[0]))
    assert metrics["train/return_last"] == pytest.approx(float(per_episode[2]))
    assert metrics["train/return"] == pytest.approx(float(per_episode.mean()))
    assert metrics["train/trial_return"] == pytest.approx(float(per_episode.sum()))
    assert metrics["train/adaptation"] == pytest.approx(float(per_episode[2] - per_episode[0]))
    assert metrics["train/episode_length"] == 2.0
    rounds = trial_metrics([rollout, rollout._replace(outcome=rollout.outcome._replace(reward=rollout.mask))], 3)
    assert rounds["train/return_last"] == 2.0, "with several rounds the points are rounds"


def test_curve_metrics_are_the_curve_s_and_bounded():
    small = curve(4)
    metrics = curve_metrics(small)
    low, high = small.interval(0.95)
    assert metrics["eval/test/episode_02"] == pytest.approx(small.mean()[1])
    assert metrics["eval/test/episode_02_low"] == pytest.approx(low[1])
    assert metrics["eval/test/episode_02_high"] == pytest.approx(high[1])
    assert metrics["eval/test/score"] == pytest.approx(small.totals.mean(), rel=1e-5)
    assert list(point_tags(curve(2, rounds=True))) == ["eval/test/round_00", "eval/test/round_01"]
    first, *others, last = point_tags(curve(100))
    assert (first, last) == ("eval/test/episode_001", "eval/test/episode_100") and len(others) <= 8


def test_tensorboard_shows_scalars_curve_config_and_hparams(tmp_path: Path, values: dict[str, Any]):
    with logger(tmp_path / "run", values) as log:
        log.iteration(Counters(1, 100, 0.1), {"train/return": 1.0})
        log.iteration(Counters(2, 200, 30.0), {"train/return": 2.0}, {"test": curve(3)})
    found = events(tmp_path / "run")
    assert [(e.step, e.value) for e in found.Scalars("train/return")] == [(100, 1.0), (200, 2.0)]
    assert [e.step for e in found.Scalars("eval/test/episode_03")] == [200]
    assert found.Tags()["images"] == ["eval/test/curve"]
    text = found.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "    total_iterations: 6" in text
    assert "    python -m *this*" in found.Tensors("command/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "_hparams_/experiment" in found.summary_metadata
    assert len(list((tmp_path / "run").glob("**/events*"))) == 1, "no second run for the hparams"


def test_the_curve_is_drawn_now_and_then_and_at_the_end(tmp_path: Path, values: dict[str, Any]):
    """A short run with many evaluations does not spend its time on pictures of them."""
    with logger(tmp_path / "run", values) as log:
        for second in (1, 21, 22, 40, 42):
            log.iteration(Counters(second, second, float(second)), {}, {"test": curve(3)})
        log.evaluation(Counters(43, 43, 43.0), {"test": curve(3)})
    with logger(tmp_path / "run", values, Counters(43, 43, 43.0)) as log:
        log.iteration(Counters(44, 44, 44.0), {}, {"test": curve(3)})
    found = events(tmp_path / "run")
    assert [event.step for event in found.Images("eval/test/curve")] == [21, 42, 43]
    assert [event.step for event in found.Scalars("eval/test/score")] == [1, 21, 22, 40, 42, 43, 44]


def pages(run_dir: Path) -> list[layout_pb2.Layout]:
    """The custom scalars as they were written, the last one in force."""
    found = events(run_dir).Tensors("custom_scalars__config__")
    return [layout_pb2.Layout.FromString(event.tensor_proto.string_val[0]) for event in found]


def test_the_custom_page_has_the_curve_with_its_interval(tmp_path: Path, values: dict[str, Any]):
    with logger(tmp_path / "run", values) as log:
        log.iteration(Counters(1, 100), {}, {"test": curve(3)})
    scalars = set(events(tmp_path / "run").Tags()["scalars"])
    (page,) = pages(tmp_path / "run")
    overview, category = page.category
    margins = [chart.margin.series[0] for chart in category.chart if chart.HasField("margin")]
    assert len(margins) == 3
    assert all({one.value, one.lower, one.upper} <= scalars for one in margins)
    (lines,) = [chart.multiline.tag[0] for chart in category.chart if chart.HasField("multiline")]
    matched = {tag for tag in scalars if re.search(lines, tag)}
    assert matched == {one.value for one in margins} == set(point_tags(curve(3)))
    first_and_last = [chart.margin.series[0] for chart in overview.chart if chart.HasField("margin")]
    assert first_and_last == [margins[0], margins[2]], "the overview has the same of the last and the first point"
    assert set(layout({"a": curve(2), "b": curve(2)})) == {"adaptation on a", "adaptation on b"}
    one, other = (layout({"test": curve(points)})["adaptation on test"] for points in (3, 20))
    assert one["all points"] == other["all points"], "TensorBoard merges the pages of unlike runs"


def test_the_last_evaluation_has_the_generalisation_gaps(tmp_path: Path, values: dict[str, Any]):
    curves = {"train": curve(2, split="train"), "test": curve(2)}
    curves["test"] = replace(curves["test"], returns=curves["test"].returns - 1.5)
    with logger(tmp_path / "run", values) as log:
        metrics = log.evaluation(Counters(1, 100), curves)
        assert not [tag for tag in log.evaluation(Counters(2, 200), {"test": curves["test"]}) if "gap" in tag]
    gap = [metrics[f"eval/test/generalisation_gap{end}"] for end in ("_low", "", "_high")]
    assert gap[1] == pytest.approx(3.0, rel=1e-5) and gap == sorted(gap)
    assert not [tag for tag in metrics if "eval/train/gen" in tag]
    assert [e.step for e in events(tmp_path / "run").Scalars("eval/test/generalisation_gap")] == [100]
    assert all(map(documented, metrics))


def test_the_custom_page_starts_with_the_splits_that_have_a_curve(tmp_path: Path, values: dict[str, Any]):
    values["eval_splits"] = ["test"]
    with logger(tmp_path / "run", values) as log:
        log.evaluation(Counters(1, 100), {split: curve(2, split=split) for split in ("train", "test", "ood")})
    (page,) = pages(tmp_path / "run")
    titles = [category.title for category in page.category]
    assert titles == ["overview", "adaptation on test", "adaptation on train", "adaptation on ood"]
    assert {chart.title.partition(":")[0] for chart in page.category[0].chart} == {"test"}


RL2_TAGS = ("train/return", "train/return_last", "loss/policy", "loss/clip_fraction", "time/memory")
MAML_TAGS = ("train/return", "loss/surrogate_after", "loss/kl_after", "time/steps_per_second")


@pytest.mark.parametrize("tags", [RL2_TAGS, MAML_TAGS])
def test_the_overview_has_charts_of_what_there_is_and_of_nothing_else(tags: tuple[str, ...]):
    charts = layout({}, tags)["overview"]
    patterns = {title: chart[1][0] for title, chart in charts.items()}
    for title, pattern in patterns.items():
        assert any(re.match(pattern, tag) for tag in tags), f"{title} would be empty"
    assert all(any(re.match(pattern, tag) for pattern in patterns.values()) for tag in tags), "all are shown"
    other = layout({}, MAML_TAGS if tags == RL2_TAGS else RL2_TAGS)["overview"]
    assert all(charts[title] == other[title] for title in charts.keys() & other.keys()), "unlike agents share charts"


def test_the_overview_is_there_from_the_first_iteration_and_written_when_it_changes(
    tmp_path: Path, values: dict[str, Any]
):
    run_dir, metrics = tmp_path / "run", {"train/return": 1.0, "loss/entropy": 1.0}
    with logger(run_dir, values) as log:
        for i in range(1, 4):
            log.iteration(Counters(i, 100 * i), metrics)
        log.iteration(Counters(4, 400), metrics, {"test": curve(2)})
        log.iteration(Counters(5, 500), metrics, {"test": curve(2)})
    early, late = pages(run_dir)
    assert [chart.title for chart in early.category[0].chart] == ["return of an episode in training", "entropy"]
    assert [category.title for category in late.category] == ["overview", "adaptation on test"]
    with logger(run_dir, values, Counters(5, 500)) as log:
        log.iteration(Counters(6, 600), metrics)
    assert pages(run_dir)[-1] == late, "a resumed run does not lose its curves"


def test_hparams_stand_beside_the_results_of_every_split(tmp_path: Path, values: dict[str, Any]):
    (tmp_path / "run").mkdir()
    values["eval_splits"] = ["test"]
    with Logger(tmp_path / "run", values, Counters(), {}, Console(), splits=("train", "test", "ood")):
        pass
    content = events(tmp_path / "run").summary_metadata["_hparams_/experiment"].plugin_data.content
    experiment = plugin_data_pb2.HParamsPluginData.FromString(content).experiment
    names = [info.name.tag for info in experiment.metric_infos]
    splits = ("test", "train", "ood")
    assert names[:4] == [*(f"eval/{split}/score" for split in splits), "eval/test/normalised"]
    assert {"eval/ood/normalised", "train/return"} <= set(names) and len(names) == len(set(names))


@pytest.mark.parametrize("preset", ["rl2_gridnavi", "maml_half_cheetah_vel", "rl2_bernoulli_bandit_n10"])
def test_hparams_are_what_differs_from_the_defaults(preset: str):
    """A preset holds nothing else, so they are its own fields."""
    own = yaml.safe_load((Path(metarl.__file__).parent / "configs" / f"{preset}.yaml").read_text("utf-8"))
    flat: dict[str, Any] = {"seed": 1}
    for name, value in own.items():
        if name in ("family", "agent"):
            part = value if isinstance(value, dict) else {"name": value}
            flat |= {name: part["name"]} | {f"{name}.{key}": x for key, x in part.items() if key != "name"}
        else:
            flat[name] = value
    found = hparams.shown(config.parse(["--config", preset, "--seed", "1", "--run_dir", "x"]).values)
    assert found.keys() == flat.keys()
    assert all(value in (flat[key], json.dumps(flat[key])) for key, value in found.items() if key != "agent.outer")


def test_pictures_are_shown_as_they_are(tmp_path: Path, values: dict[str, Any]):
    files = {}
    for kind in ("png", "gif"):
        buffer = io.BytesIO()
        Image.new("RGB", (20, 10), "red").save(buffer, kind, save_all=kind == "gif")
        files[f"eval/test/{kind}"] = buffer.getvalue()
    with logger(tmp_path / "run", values) as log:
        for tag, data in files.items():
            log.picture(Counters(1, 100), tag, data)
    for tag, data in files.items():
        (shown,) = events(tmp_path / "run").Images(tag)
        assert (shown.encoded_image_string, shown.width, shown.height, shown.step) == (data, 20, 10, 100)


def test_memory_is_the_process_s_peak():
    before = memory_metrics(torch.device("cpu"))["time/memory"]
    block = np.ones(int(before + 100) * 2**17)  # as many MB more, of 8 bytes each
    after = memory_metrics(torch.device("cpu"))
    assert list(after) == ["time/memory"]
    assert before + 90 < after["time/memory"] < 3 * before + 200
    del block
    assert memory_metrics(torch.device("cpu"))["time/memory"] >= after["time/memory"], "the peak stays"


def test_the_family_s_card_is_its_docstring_with_its_sizes():
    card = family_card(Guess(numbers=4))
    assert card.startswith("Guess: episode × trial 2 × 3, observation Box(1), action Discrete(4)\n\nReward 1 for guess")
    assert "\nArgs:\n    numbers: How many" in card


def test_a_resumed_run_s_files_look_like_an_uninterrupted_one_s(tmp_path: Path, values: dict[str, Any]):
    run_dir = tmp_path / "run"
    with logger(run_dir, values) as log:
        for i in (1, 2, 3):
            log.iteration(Counters(i, 100 * i), {"train/return": float(i)})
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 4, "env_st')  # killed while writing
    with logger(run_dir, values, Counters(2, 200)) as log:
        log.iteration(Counters(3, 300), {"train/return": 30.0})
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [(line["iteration"], line["train/return"]) for line in lines] == [(1, 1.0), (2, 2.0), (3, 30.0)]
    assert [(e.step, e.value) for e in events(run_dir).Scalars("train/return")] == [(100, 1), (200, 2), (300, 30)]


def shown(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """All points of a run, as TensorBoard has them, by tag."""
    found = events(run_dir)
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def texts(run_dir: Path) -> dict[str, list[int]]:
    """The steps of all texts, by tag; and of the page "HParams"."""
    found = events(run_dir)
    return {tag: [event.step for event in found.Tensors(tag)] for tag in found.Tags()["tensors"]}


def test_a_run_killed_before_its_first_checkpoint_has_no_point_twice(tmp_path: Path, values: dict[str, Any]):
    for end in (3, 5):  # the second start goes on from nothing, too
        with logger(tmp_path / "run", values) as log:
            for i in range(1, end + 1):
                log.iteration(Counters(i, 100 * i), {"train/return": float(i + end)}, {"test": curve(2)})
    with logger(tmp_path / "whole", values) as log:
        for i in range(1, 6):
            log.iteration(Counters(i, 100 * i), {"train/return": float(i + 5)}, {"test": curve(2)})
    assert shown(tmp_path / "run") == shown(tmp_path / "whole")
    assert texts(tmp_path / "run") == texts(tmp_path / "whole")
    assert len(pages(tmp_path / "run")) == len(pages(tmp_path / "whole"))


@pytest.mark.parametrize("more", [0, 2], ids=["as it was", "with more iterations"])
def test_a_finished_run_that_is_resumed_has_no_point_twice_and_loses_none(
    tmp_path: Path, values: dict[str, Any], more: int
):
    values |= {"total_iterations": 3, "final_eval_tasks": 20}
    run_dir = tmp_path / "run"

    def session(first: int, start: Counters = Counters()) -> None:  # noqa: B008
        with logger(run_dir, values, start) as log:
            for i in range(first, values["total_iterations"] + 1):
                log.iteration(Counters(i, 100 * i), {"train/return": float(i)}, {"test": curve(2)} if i == 2 else None)
            log.evaluation(Counters(values["total_iterations"], 100 * values["total_iterations"]), {"test": curve(2)})

    session(1)
    before = shown(run_dir)
    values["total_iterations"] += more
    for _ in range(3):
        session(4, Counters(3, 300))
        steps = {tag: [step for step, _ in points] for tag, points in shown(run_dir).items()}
        assert steps.pop("train/return") == [100 * i for i in range(1, 4 + more)]
        evaluated = [200, 300, 500] if more else [200, 300]
        assert len(steps) > 5 and all(each == evaluated for each in steps.values())
        assert all(shown(run_dir)[tag][: len(points)] == points for tag, points in before.items())
        assert texts(run_dir)["command/text_summary"] == [0, 300]


def test_a_run_without_environment_steps_is_shown_by_its_iterations(tmp_path: Path, values: dict[str, Any]):
    """As of an agent that learns from histories; a resume then drops and keeps the right points, too."""
    run_dir = tmp_path / "run"
    for first, last, start in ((1, 4, Counters()), (4, 5, Counters(3))):  # killed after a checkpoint at 3
        with logger(run_dir, values, start) as log:
            for i in range(first, last + 1):
                log.iteration(Counters(i), {"loss/policy": float(i)}, {"test": curve(2)} if i in (2, 4) else None)
    points = shown(run_dir)
    assert points["loss/policy"] == [(i, float(i)) for i in range(1, 6)]
    assert [step for step, _ in points["eval/test/score"]] == [2, 4]


def test_a_resume_with_another_number_of_threads_says_so(
    tmp_path: Path, values: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    """Threads add numbers in another order, so that such a run is not bit for bit the uninterrupted one."""

    def said(threads: int, start: Counters) -> str:
        runtime = {"threads": str(threads), "device": "cpu"}
        Logger(tmp_path, values, start, {"runtime": json.dumps(runtime)}, Console(width=200)).__exit__()
        return " ".join(capsys.readouterr().out.split())

    assert said(1, Counters()) == said(1, Counters(2, 200)) == ""
    assert said(2, Counters(2, 200)).startswith("Resumed with other settings (threads 1, now 2): numbers will differ")
    assert said(2, Counters(2, 200)) == ""
    (tmp_path / "runtime.json").write_text("[1")
    assert said(1, Counters(2, 200)) == ""


def test_damaged_lines_do_not_end_a_resume(tmp_path: Path, values: dict[str, Any], capsys: pytest.CaptureFixture[str]):
    run_dir = tmp_path / "run"
    with logger(run_dir, values) as log:
        for i in range(1, 6):
            log.iteration(Counters(i, 100 * i), {"train/return": float(i)})
    path = run_dir / "metrics.jsonl"
    good = path.read_bytes().splitlines(keepends=True)
    damage = [
        b"\x00" * 40 + b"\n",
        b'{"iteration": 2, "env\n',
        b"\xff\xfe\n",
        b"[]\n",
        b'{"train/return": 1.0}\n',
        b"\n",
    ]
    path.write_bytes(good[0] + damage[0] + damage[1] + good[2] + b"".join(damage[2:]) + good[3] + good[4])
    capsys.readouterr()
    with logger(run_dir, values, Counters(4, 400)) as log:
        log.iteration(Counters(5, 500), {"train/return": 50.0})
    assert path.read_bytes().splitlines(keepends=True)[:3] == [good[0], good[2], good[3]], "these are as they were"
    assert [json.loads(line)["iteration"] for line in path.read_text().splitlines()] == [1, 3, 4, 5]
    assert "metrics.jsonl: 6" in " ".join(capsys.readouterr().out.split())


LINES = {
    "nul bytes inside": b'{"iteration": 2, "env_steps": 200, "train/ret\x00\x00": 2.0}',
    "only nul bytes": b"\x00" * 60,
    "no UTF-8": b'{"iteration": 2, "env_steps": 200, "train/r\xff": 2.0}',
    "UTF-16": '{"iteration": 2, "env_steps": 200}'.encode("utf-16"),
    "iteration as a truth value": b'{"iteration": true, "env_steps": 200}',
    "iteration as a fraction": b'{"iteration": 2.0, "env_steps": 200}',
    "iteration as a text": b'{"iteration": "2", "env_steps": 200}',
    "iteration below one": b'{"iteration": -2, "env_steps": 200}',
    "no environment steps": b'{"iteration": 2, "train/return": 2.0}',
    "a metric as a text": b'{"iteration": 2, "env_steps": 200, "train/return": "2.0"}',
    "a metric as a list": b'{"iteration": 2, "env_steps": 200, "train/return": [2.0]}',
    "a number of 5000 digits": b'{"iteration": 2, "env_steps": ' + b"9" * 5000 + b"}",
    "nested": b"[" * 100_000,
    "two objects": b'{"iteration": 2, "env_steps": 200}{"iteration": 2, "env_steps": 200}',
    "another iteration's number": b'{"iteration": 1, "env_steps": 200, "train/return": 2.0}',
    "a later iteration's number": b'{"iteration": 9, "env_steps": 200, "train/return": 2.0}',
    "empty": b"",
}


@pytest.mark.parametrize("name", LINES)
def test_a_damaged_line_is_left_out_and_said(
    name: str, tmp_path: Path, values: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "metrics.jsonl"
    good = [json.dumps({"iteration": i, "env_steps": 100 * i, "train/return": float(i)}).encode() for i in range(1, 6)]
    path.write_bytes(b"\n".join([good[0], LINES[name], *good[2:]]) + b"\n")
    with logger(tmp_path, values, Counters(4, 400)):
        pass
    assert path.read_bytes().splitlines() == [good[0], good[2], good[3]]
    assert "metrics.jsonl: 1" in " ".join(capsys.readouterr().out.split())


def test_a_thousand_damaged_files_keep_what_was_not_touched(tmp_path: Path):
    """Bytes flipped, removed, repeated or cut off: every other line is kept as it was, in order."""
    path, draw = tmp_path / "metrics.jsonl", random.Random(0)
    good = [json.dumps({"iteration": i, "env_steps": 100 * i, "loss/value": i / 7}).encode() for i in range(1, 9)]
    whole = b"\n".join(good) + b"\n"
    for _ in range(1000):
        start = draw.randrange(len(whole))
        end = min(len(whole), start + draw.choice((1, 1, 20, len(whole))))
        part = draw.choice((bytes(draw.randrange(256) for _ in range(end - start)), b"", whole[start:end] * 2))
        path.write_bytes(whole[:start] + part + whole[end:])
        keep_lines(path, iterations=6)
        kept = path.read_bytes().splitlines()
        untouched = [*whole[:start].split(b"\n")[:-1], *whole[end:].split(b"\n")[1:-1]]
        numbers = [json.loads(line)["iteration"] for line in kept]
        assert numbers == sorted(set(numbers)) and all(0 < number <= 6 for number in numbers)
        lost = [line for line in untouched if line in good[:6] and line not in kept]
        # A damaged number can be that of another line, which then stands twice: the first of both is kept.
        assert len(lost) <= 1 and all(json.loads(line)["iteration"] in numbers for line in lost)


def test_lines_out_of_order_are_ordered_and_repeated_ones_left_out(
    tmp_path: Path, values: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "metrics.jsonl"
    good = [json.dumps({"iteration": i, "env_steps": 100 * i}).encode() for i in range(1, 6)]
    path.write_bytes(b"\n".join([good[0], good[2], good[1], good[1], good[3], good[0]]) + b"\n")
    with logger(tmp_path, values, Counters(4, 400)):
        pass
    assert path.read_bytes().splitlines() == good[:4]
    assert "metrics.jsonl: 2" in " ".join(capsys.readouterr().out.split())


def test_a_failure_while_lines_are_dropped_keeps_all(
    tmp_path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"iteration": i, "env_steps": 100 * i}) + "\n" for i in range(1, 6)))
    before = path.read_bytes()

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        logger(tmp_path, values, Counters(3, 300))
    assert path.read_bytes() == before and not list(tmp_path.glob(".*"))


def test_jsonl_stays_json_when_a_metric_is_not_a_number(tmp_path: Path, values: dict[str, Any]):
    with logger(tmp_path / "run", values) as log:
        log.iteration(Counters(1, 100), {"loss/policy": float("nan")})
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=lambda name: pytest.fail(name))["loss/policy"] is None


def test_a_bar_on_a_terminal_and_few_plain_lines_elsewhere(
    tmp_path: Path, values: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    values = values | {"total_iterations": 200}
    metrics = {"train/return": 1.25, "time/steps_per_second": 61234.0}
    for name, terminal in (("plain", {}), ("tty", {"force_terminal": True})):
        with logger(tmp_path / name, values, **terminal) as log:
            for i in range(1, 201):
                log.iteration(Counters(i, 100 * i), metrics, {"test": curve(3)} if i == 100 else None)
        shown = capsys.readouterr().out
        assert "61.2k steps/s, return 1.25" in shown and re.search(r"test \S+ → \S+ → \S+", shown)
        if name == "plain":
            assert "\x1b" not in shown and 10 <= len(shown.splitlines()) <= 25
        else:
            assert "\x1b" in shown and "200/200" in shown


def documented(tag: str) -> bool:
    pattern = re.sub(r"^eval/[^/]+", "eval/<split>", tag)
    pattern = re.sub(r"(episode|round)_\d+$", r"\1_NN", pattern)
    names = re.findall(r"`([^`]+)`", DOCS.read_text(encoding="utf-8"))
    mean = re.sub(r"_(low|high)$", "", tag)
    return pattern in names or (mean != tag and f"…{tag[len(mean) :]}" in names and documented(mean))


def test_every_tag_is_documented():
    rollouts = trial()
    metrics = trial_metrics(rollouts, 3) | curve_metrics(curve(3)) | curve_metrics(curve(3, rounds=True))
    undocumented = [tag for tag in (*metrics, "time/memory", "time/device_memory") if not documented(tag)]
    assert not undocumented
    assert not documented("train/retrun") and not documented("eval/test/epsiode_01_low")
