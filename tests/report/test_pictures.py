"""The pictures of an evaluation show what was evaluated, and are of bounded size."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from registered_families import IDS
from small_families import Corridor, Reach
from test_log import curve, documented
from torch import Tensor

import metarl
from metarl.agents import MAMLConfig, RL2Config
from metarl.agents.random import FixedAgent, RandomAgent, scripted
from metarl.core import rng
from metarl.core.batch_env import Step
from metarl.core.family import Key, Task, TaskFamily, drawn, has_picture
from metarl.core.rollout import Acted, Agent, Memory, TrialProtocol, run_trial
from metarl.evaluation import evaluator
from metarl.evaluation.drawing.colours import OPTIMUM, colour
from metarl.evaluation.evaluator import EVALUATION, evaluate
from metarl.evaluation.playback import Watched, replay, watch
from metarl.report.behaviour import MAX_FRAMES, Picture, chosen_trials, frames, pictures, scenes
from metarl.report.best_arm import arm_worths, best_arm, best_arm_figure, best_arm_share, references
from metarl.report.figures import (
    MAX_COLUMNS,
    MAX_TASKS,
    group_means,
    panels,
    png,
    task_map,
    task_rows,
    where,
)
from metarl.report.images import GIF_BYTES, Captioned, fitted, gif, stack, strip

CPU = torch.device("cpu")


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


# ---- played again --------------------------------------------------------------------------------------------------


def rl2(family: TaskFamily) -> Agent:
    return RL2Config(meta_batch_size=4, hidden_size=8).build(family, 1, CPU)


def maml(family: TaskFamily) -> Agent:
    config = MAMLConfig(meta_batch_size=2, hidden_sizes=(8,), fast_batch_size=3, inner_steps=1, test_steps=2)
    return config.build(family, 1, CPU)


@pytest.mark.parametrize("rows", [2, 1000])
def test_a_replay_gives_the_evaluated_returns_exactly(monkeypatch: pytest.MonkeyPatch, rows: int):
    """Episodes of various lengths with noise, a network, and tasks that were played in one chunk or in several."""
    monkeypatch.setattr(evaluator, "CHUNK_ROWS", rows)
    family = Corridor()
    found, watched = watch(rl2(family), family, "test", 5, seed=3, repeats=1)
    lengths = set()
    for number in range(5):
        (episodes,) = replay(watched, family, number, seed=3)
        returns = [float(np.sum(np.array(e.rewards, np.float32), dtype=np.float32)) for e in episodes]
        assert returns == found.returns[0, number].tolist()
        assert all(len(e.states) == len(e.rewards) + 1 for e in episodes)
        assert all(int(e.states[0].place) == 0 for e in episodes), "each episode begins at its start"
        lengths |= {len(e.rewards) for e in episodes}
    assert len(lengths) > 1, "rows of a chunk end at different times"


def test_a_replay_of_an_agent_that_adapts_in_rounds_gives_its_rewards_row_by_row():
    family = Reach()
    agent = maml(family)
    watched = Watched(agent, rows=3)
    found = evaluate(watched, family, "test", 4)
    key = rng.fold(rng.fold(rng.key(0), EVALUATION), 1)
    protocol = agent.protocol.test()
    trial = run_trial(agent, family, watched.task, key, rounds=protocol.rounds, envs_per_task=protocol.envs_per_task)
    assert len(trial) == 3 and found.returns.shape == (1, 4, 3)
    for number, row in ((0, 0), (2, 1), (3, 2)):
        again = replay(watched, family, number, row)
        for rollout, episodes in zip(trial, again, strict=True):
            rewards = [reward for episode in episodes for reward in episode.rewards]
            assert rewards == rollout.outcome.reward[:, 3 * number + row].tolist()


def test_watching_changes_nothing():
    family = Corridor()
    agent = rl2(family)
    plain, (found, _) = evaluate(agent, family, "test", 6), watch(agent, family, "test", 6)
    assert np.array_equal(plain.returns, found.returns) and found.agent == plain.agent == "RL2"


def test_only_what_was_played_is_there():
    family = Corridor()
    _, watched = watch(RandomAgent(family), family, "test", 3)
    assert len(watched.task.length) == 3
    with pytest.raises(ValueError, match="number must be from 0 to 2, got 3"):
        watched.actions(3)


# ---- tasks × points ------------------------------------------------------------------------------------------------


def test_the_map_s_rows_fall_from_the_best_task_to_the_worst():
    many = curve(4, tasks=1000)
    rows = task_rows(many)
    assert len(rows.task) == MAX_TASKS and (np.diff(rows.score) <= 0).all()
    assert (rows.score[0], rows.score[-1]) == (many.totals.max(), many.totals.min())
    assert np.array_equal(rows.returns, many.returns[0, rows.task])
    assert rows.edges.tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]
    few = task_rows(curve(3, rounds=True))
    assert sorted(few.task) == list(range(20)), "every task, where they are few"
    assert np.array_equal(few.score, few.returns[:, -1]), "the score of rounds is the last one's"
    assert few.edges.tolist() == [-0.5, 0.5, 1.5, 2.5]


def test_the_map_s_columns_are_means_of_neighbours_where_points_are_many():
    long = curve(60)
    rows = task_rows(long)
    assert rows.returns.shape == (20, MAX_COLUMNS)
    widths = np.diff(rows.edges)
    assert widths.min() == 2 and widths.max() == 3 and rows.edges[[0, -1]].tolist() == [0.5, 60.5]
    assert np.allclose(rows.returns @ widths, long.totals[0, rows.task], rtol=1e-5), "nothing is lost"
    assert np.allclose(rows.returns[:, 0], long.returns[0, rows.task, :3].mean(1), rtol=1e-6)


def test_the_map_shows_the_rows_beside_score_and_optimum():
    figure = task_map(curve(3))
    left, right = figure.axes[:2]
    rows = task_rows(curve(3))
    assert np.array_equal(left.collections[0].get_array(), rows.returns)
    assert left.get_ylim() == (20, 0), "the best on top"
    optimum, score = right.lines
    assert np.array_equal(score.get_xdata(), rows.score)
    assert set(optimum.get_xdata()) == {9.0}, "of three episodes, like the score"
    assert opened(png(figure)).size == (900, 520)


# ---- task parameters -----------------------------------------------------------------------------------------------


class Inner(NamedTuple):
    flag: Tensor


class Many(NamedTuple):
    place: Tensor
    same: Tensor
    table: Tensor
    inner: Inner


def many(tasks: int = 50) -> Many:
    draw = np.random.default_rng(0).normal(size=(tasks, 20))
    values = torch.tensor(draw, dtype=torch.float32)
    return Many(values[:, :2], torch.ones(tasks), values[:, 2:].reshape(tasks, 6, 3), Inner(values[:, 2] > 0))


def test_each_number_of_a_task_has_a_panel_and_a_place_has_one():
    task = many()
    found = {panel.name: panel.values for panel in panels(task, np.zeros(50))}
    assert list(found) == ["place", "table, mean of 18", "table, largest of 18", "inner.flag"]
    assert found["place"].shape == (50, 2)
    assert np.allclose(found["table, mean of 18"][:, 0], task.table.mean(dim=(1, 2)), atol=1e-6)
    assert set(found["inner.flag"][:, 0]) == {0.0, 1.0}


def test_of_many_numbers_those_stay_that_matter_and_the_optimum_comes_first():
    class Wide(NamedTuple):
        a: Tensor
        b: Tensor

    values = torch.tensor(np.random.default_rng(1).normal(size=(400, 14)), dtype=torch.float32)
    scores = (values[:, 3] ** 3 - 2.0 * values[:, 12]).double().numpy()
    found = [panel.name for panel in panels(Wide(values[:, :7], values[:, 7:]), scores, optimum=values[:, 0].numpy())]
    assert len(found) == 8 and found[0] == "known-task optimum" and {"a[3]", "b[5]"} <= set(found)
    rest = found[1:]
    assert rest == sorted(rest), "in the order of the task's fields"
    constant = panels(Wide(values[:, :7], values[:, 7:]), np.zeros(400), optimum=np.ones(400))
    assert "known-task optimum" not in [panel.name for panel in constant]


def test_a_map_s_cells_are_the_mean_scores_of_the_tasks_there():
    class Goal(NamedTuple):
        goal: Tensor

    cells = torch.tensor([[0, 1], [2, 3], [0, 1], [1, 1]]).repeat(5, 1)  # x and y
    found = curve(1)
    scores = found.totals[0]
    figure = where(found, Goal(cells))
    assert figure is not None
    shown = figure.axes[0].collections[0].get_array()
    assert shown.shape == (3, 3), "y from 1 to 3, x from 0 to 2"
    assert shown[0, 0] == pytest.approx(scores[[0, 2] * 5 + np.repeat(np.arange(0, 20, 4), 2)].mean())
    assert shown[2, 2] == pytest.approx(scores[1::4].mean())
    assert np.ma.getmaskarray(shown).sum() == 6, "cells without a task stay empty"
    assert where(found, Goal(torch.ones(20, 2))) is None, "nothing varies"


def test_group_means_by_hand():
    x, y = group_means(np.array([1.0, 0.0, 1.0]), np.array([2.0, 5.0, 4.0]))
    assert (x.tolist(), y.tolist()) == ([0.0, 1.0], [5.0, 3.0]), "of each value, where there are few"
    x, y = group_means(np.arange(100.0)[::-1], np.arange(100.0))
    assert np.array_equal(x, np.arange(4.5, 100, 10)) and np.array_equal(y, 99 - x), "ten equal groups"


# ---- bandits -------------------------------------------------------------------------------------------------------


class Told(FixedAgent):
    """Always pulls the best arm."""

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        worths = arm_worths(task)
        assert worths is not None
        return worths.argmax(1)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        each = len(step.prev_reward) // len(memory)
        return scripted(memory.repeat_interleave(each), step), memory


BANDITS = ["BernoulliBandit", "GaussianBandit", "DependentBandit", "InformativeBandit"]


@pytest.mark.parametrize("name", BANDITS)
def test_who_pulls_the_best_arm_has_share_1_and_random_has_one_in_k(name: str):
    family = metarl.make(f"metarl/{name}-v0", episodes_per_trial=20)
    shares = {}
    tasks = family.num_tasks("train") or 300
    for agent in (Told(), RandomAgent(family)):
        _, watched = watch(agent, family, "train", 300)
        (actions,) = watched.all_actions()
        shares[type(agent)] = best_arm_share(arm_worths(watched.task), actions[:, 0])
    assert shares[Told].shape == (tasks, 20) and (shares[Told] == 1.0).all()
    n, k = shares[RandomAgent].size, family.action_space.n
    assert shares[RandomAgent].mean() == pytest.approx(1.0 / k, abs=4.0 * np.sqrt((k - 1) / n) / k)


def test_equal_arms_are_all_best_and_a_walk_s_best_arm_changes():
    worths = torch.tensor([[0.5, 0.5, 0.1]])
    assert best_arm_share(worths, torch.tensor([[0, 1, 2]])).tolist() == [[1.0, 1.0, 0.0]]
    walk = torch.tensor([[[0.9, 0.1], [0.2, 0.8]]])  # arm 0 is better at first, then arm 1; again in each episode
    assert best_arm_share(walk, torch.tensor([[0, 0, 1, 1]])).tolist() == [[1.0, 0.0, 0.0, 1.0]]


def test_the_figure_has_the_agent_and_the_written_down_players_of_the_same_tasks():
    family = metarl.make("metarl/BernoulliBandit-v0", num_arms=3, episodes_per_trial=15)
    found, watched = watch(Told(), family, "test", 60)
    figure = best_arm(found, watched, family, references(family, CPU))
    assert figure is not None
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    assert list(lines) == ["Told", "Gittins index", "Thompson sampling", "random"]
    assert (lines["Told"] == 1.0).all() and len(lines["Gittins index"]) == 15
    assert lines["Gittins index"][-1] > 0.5 > lines["random"].mean()
    corridor = Corridor()
    assert best_arm(*watch(RandomAgent(corridor), corridor, "test", 3), corridor, references(corridor, CPU)) is None


def test_an_agent_in_rounds_has_a_point_per_round():
    class Rounds(Told):
        protocol = TrialProtocol(rounds=2, episodes=4, envs_per_task=3)

        def adapt(self, memory, rollout):
            return (memory + 1) % 3

    family = metarl.make("metarl/BernoulliBandit-v0", num_arms=3, episodes_per_trial=15)
    found, watched = watch(Rounds(), family, "test", 10)
    figure = best_arm(found, watched, family, references(family, CPU))
    assert figure is not None
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    assert set(lines) == {"Rounds", "random"} and lines["Rounds"].tolist() == [1.0, 0.0]
    (heading, *_, shown) = chosen_trials(family, found, watched)[0]
    assert "3 of its 3 rows" in heading
    assert [len(scene.episode.rewards) for scene in shown] == [12, 12], "all rows' pulls of a round in one picture"


# ---- behaviour -----------------------------------------------------------------------------------------------------


def test_the_trials_shown_are_the_lowest_the_median_and_the_highest():
    family = metarl.make("metarl/GridNavi-v0", episodes_per_trial=8)
    found, watched = watch(RandomAgent(family), family, "train", 9, repeats=1)
    trials = chosen_trials(family, found, watched)
    totals = [sum(sum(scene.episode.rewards) for scene in trial.scenes) for trial in trials]
    assert totals == pytest.approx(np.sort(found.totals[0])[[0, 4, 8]].tolist(), abs=1e-4)
    assert [trial.heading.split()[0] for trial in trials] == ["lowest", "median", "highest"]
    assert [scene.label for scene in trials[0].scenes] == list(found.labels)
    alone = chosen_trials(family, *watch(RandomAgent(family), family, "test", 1))
    assert len(alone) == 1, "a task is shown once"


def test_a_bandit_s_trial_is_one_picture_and_a_round_is_its_first_episode():
    bandit = metarl.make("metarl/BernoulliBandit-v0", episodes_per_trial=7)
    found, watched = watch(RandomAgent(bandit), bandit, "test", 2)
    (scene,) = scenes(watched, bandit, 1, found)
    assert len(scene.episode.rewards) == 7 and len(scene.episode.states) == 8
    assert found.repeats == 20, "of which the first is shown"
    once, watched = watch(RandomAgent(bandit), bandit, "test", 2, repeats=1)
    (scene,) = scenes(watched, bandit, 1, once)
    assert sum(scene.episode.rewards) == once.totals[0, 1]
    reach = Reach()
    found, watched = watch(maml(reach), reach, "test", 2)
    shown = scenes(watched, reach, 0, found)
    assert [scene.label for scene in shown] == ["0 gradient steps", "1 gradient step", "2 gradient steps"]
    assert all(len(scene.episode.rewards) == 3 for scene in shown)


def test_the_frames_go_from_the_start_of_a_trial_to_its_end():
    family = metarl.make("metarl/GridNavi-v0", episodes_per_trial=5)
    trial = chosen_trials(family, *watch(RandomAgent(family), family, "test", 1))[0]
    made = frames(family, trial)
    assert len(made) == MAX_FRAMES and len({image.size for image in made}) == 1
    episodes = [scene.episode.states for scene in trial.scenes]
    for image, seen in ((made[0], [episodes[0][:1]]), (made[-1], episodes)):
        expected = Image.fromarray(drawn(family.sketch(trial.task, 5), seen))
        expected.thumbnail((360, 360))
        shown = image.crop((1, 23, expected.width - 1, 21 + expected.height))  # without caption and frame
        assert np.array_equal(shown, expected.crop((1, 1, expected.width - 1, expected.height - 1)))


def test_an_animation_opens_and_its_size_is_bounded():
    noise = np.random.default_rng(0).integers(0, 255, (30, 120, 100, 3), dtype=np.uint8)
    images = [Image.fromarray(frame) for frame in noise]
    with opened(gif(images)) as animation:
        assert animation.format == "GIF" and animation.n_frames == 30 and animation.size == (100, 120)
        animation.seek(29)
        assert animation.info["duration"] >= 2000, "the end can be looked at"
    small = gif(images, most=100_000)
    assert len(small) <= 100_000 < len(gif(images))
    assert opened(small).n_frames == 30
    with opened(gif([Image.new("RGB", (10, 30)), Image.new("RGB", (40, 20), "red")])) as animation:
        assert animation.size == (40, 30), "a canvas that all frames fit on"


def test_strips_keep_to_their_width():
    images = [Captioned(Image.new("RGB", (400, 200), "blue"), "above", "below")] * 6
    one = strip(images[:2], width=1000)
    assert one.size == (2 * 400 + 14, 22 + 200 + 22), "side by side, in full size where there is room"
    wrapped = strip(images, width=1000)
    assert wrapped.width <= 1000 and wrapped.height == 2 * (22 + 162 + 22), "two lines of three"
    assert strip(images[:1], width=100).width == 100
    assert stack([Captioned(one, "heading"), Captioned(wrapped, "heading")]).width == max(one.width, wrapped.width)
    assert fitted(images[0].image, 50, 400).size == (100, 50)


# ---- all of a run --------------------------------------------------------------------------------------------------


def made(family: TaskFamily, *splits: str) -> dict[str, Picture]:
    evaluated = {split: watch(RandomAgent(family), family, split, 20) for split in splits}
    return {picture.tag: picture for picture in pictures(family, evaluated, pytest.fail)}


def test_a_run_s_pictures_are_named_documented_and_of_bounded_size():
    found = made(metarl.make("metarl/BernoulliBandit-v0", num_arms=3, episodes_per_trial=8), "test", "ood")
    names = ("tasks", "where", "best_arm", "behaviour/strip", "behaviour/trial")
    assert set(found) == {f"eval/{split}/{name}" for split in ("test", "ood") for name in names}
    assert not [tag for tag in found if not documented(tag)]
    assert found["eval/test/behaviour/trial"].file_name == "test_trial.gif"
    assert found["eval/ood/best_arm"].file_name == "ood_best_arm.png"
    for picture in found.values():
        with opened(picture.data) as image:
            assert image.format in ("PNG", "GIF") and max(image.size) <= 1600
    assert opened(found["eval/test/behaviour/trial"].data).n_frames == 9


def test_a_family_without_a_picture_has_none_of_behaviour():
    assert not has_picture(Corridor()) and has_picture(metarl.make("metarl/GridNavi-v0"))
    assert set(made(Corridor(), "test")) == {"eval/test/tasks", "eval/test/where"}


@pytest.mark.slow
@pytest.mark.parametrize("id", IDS)
def test_every_family_has_pictures_of_bounded_size(id: str):
    family = metarl.make(id)
    split = "ood" if "ood" in family.splits else family.splits[-1]
    found = made(family, split)
    row, trial = (found[f"eval/{split}/behaviour/{name}"].data for name in ("strip", "trial"))
    assert opened(trial).n_frames > 1 and len(trial) <= GIF_BYTES < 1_500_000
    assert opened(row).width <= 1200 and len(row) <= 1_000_000


def test_a_picture_that_fails_is_left_out_and_said_once():
    class NoDisplay(Corridor):
        def render(self, task, states):
            raise RuntimeError("no\ndisplay")

    said: list[str] = []
    evaluated = {split: watch(RandomAgent(NoDisplay()), NoDisplay(), split, 5) for split in ("test", "ood")}
    found = [picture.tag for picture in pictures(NoDisplay(), evaluated, said.append)]
    assert found == ["eval/test/tasks", "eval/test/where", "eval/ood/tasks", "eval/ood/where"]
    assert said == ["The picture eval/test/behaviour/strip could not be made (RuntimeError: no display)"]


def test_a_figure_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch):
    def fail(curve):
        raise ValueError("no figure")

    monkeypatch.setattr("metarl.report.behaviour.task_map", fail)
    family = metarl.make("metarl/GridNavi-v0")
    said: list[str] = []
    evaluated = {"test": watch(RandomAgent(family), family, "test", 3)}
    found = [picture.tag for picture in pictures(family, evaluated, said.append)]
    assert found == [f"eval/test/{name}" for name in ("where", "belief", "behaviour/strip", "behaviour/trial")]
    assert len(said) == 1 and "no figure" in said[0]


def test_an_agent_has_one_colour_in_all_pictures_and_the_optimum_is_black():
    found = replace(curve(3), agent="RL2")
    optimum, score = task_map(found).axes[1].lines
    assert (optimum.get_color(), score.get_color()) == (OPTIMUM, colour("RL2"))
    shares = {name: np.full((5, 4), 0.5) for name in ("RL2", "Thompson sampling", "random")}
    lines = best_arm_figure(found, shares).axes[0].lines
    assert [line.get_color() for line in lines] == [colour(name) for name in shares]
