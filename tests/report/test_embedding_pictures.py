"""Pictures of embeddings: places and colours are the tasks', who has none is told so, and a run has the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_families import Reach, TwoDoors
from torch import Tensor

import metarl
from metarl.agents.pearl import PEARL, PEARLConfig
from metarl.agents.random import RandomAgent
from metarl.cli.watch import main
from metarl.core.rollout import Agent, Embedder, Memory, Rollout, TrialProtocol
from metarl.evaluation.playback import watch
from metarl.report.behaviour import pictures
from metarl.report.embeddings.picture import (
    MOST,
    check_embedded,
    clearest,
    embedding_figure,
    nothing_to_show,
    projected,
)
from metarl.report.figures import Panel


class Knowing(RandomAgent):
    """Its embedding of a task is the task's own place, turned and put into four numbers."""

    def __init__(self, family: Reach, rounds: int = 2) -> None:
        super().__init__(family)
        self.protocol = TrialProtocol(rounds, episodes=1)

    def adapt(self, memory: Memory, rollout: Rollout) -> Memory:
        return rollout.task.position

    def task_embedding(self, memory: Memory) -> Tensor:
        x, y = memory.T
        return torch.stack([x + y, x - y, 0.1 * x, torch.ones_like(x)], dim=1)


def dots(agent: Agent, tasks: int = 40) -> list[tuple[np.ndarray, np.ndarray]]:
    """The places and the coloured numbers of each panel."""
    curve, watched = watch(agent, Reach(), "train", tasks)
    figure = embedding_figure(curve, watched)
    panels = [ax for ax in figure.axes if ax.get_xlabel()]
    return [(np.asarray(ax.collections[0].get_offsets()), ax.collections[0].get_array()) for ax in panels]


def test_dots_are_the_tasks_and_colours_their_numbers():
    """Distances in the plane are those of the embeddings, which here are those of the tasks, times √2."""
    family = Reach()
    _, watched = watch(Knowing(family), family, "train", 40)
    place = watched.task.position.numpy().astype(np.float64)
    found = dots(Knowing(family))
    assert len(found) == 2
    for number, (dot, shade) in enumerate(found):
        between, expected = (np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (dot, place))
        np.testing.assert_allclose(between, np.sqrt(2.0) * expected, rtol=0.01, atol=1e-3)
        np.testing.assert_allclose(shade, place[:, number], atol=1e-6)


def test_the_plane_is_that_of_the_principal_components():
    mixed = np.random.default_rng(0).normal(size=(50, 4)) @ np.random.default_rng(1).normal(size=(4, 4))
    places, names = projected(mixed)
    variance = np.sort(np.linalg.eigvalsh(np.cov(mixed.T, bias=True)))[::-1]
    np.testing.assert_allclose(places.var(axis=0), variance[:2])
    assert f"({100 * variance[0] / variance.sum():.0f} %" in names[0]
    np.testing.assert_allclose(projected(mixed[::-1])[0][::-1], places)
    np.testing.assert_array_equal(projected(mixed[:, :2])[0], mixed[:, :2])
    np.testing.assert_array_equal(projected(mixed[:, :1])[0], np.stack([mixed[:, 0], np.zeros(50)], axis=1))


def test_of_many_numbers_those_are_shown_that_the_plane_explains():
    rng = np.random.default_rng(2)
    places = rng.normal(size=(80, 2))
    panels = [Panel(f"n{n}", rng.normal(size=(80, 1)) * 5.0) for n in range(5)]
    for n in (1, 3, 4):
        panels[n] = Panel(f"n{n}", 7.0 + places @ rng.normal(size=(2, 1)) + 0.1 * panels[n].values)
    names = [panel.name for panel in clearest(panels, places)]
    assert len(names) == MOST and {"n1", "n3", "n4"} <= set(names) and names == sorted(names)
    assert len(clearest(panels, np.zeros((80, 2)))) == MOST, "an embedding that is constant explains nothing"


def test_an_evaluation_notes_the_embeddings_of_the_last_round():
    """Each task's own, in the order of the tasks, although every task has several trials."""
    family = TwoDoors()
    agent = PEARL(PEARLConfig(hidden_sizes=(8,), encoder_sizes=(8,), latent_size=2), family)
    _, watched = watch(agent, family, "train", 9)
    assert isinstance(agent, Embedder) and watched.repeats > 1
    assert watched.embedding.shape == (9, 2) and len(watched.task.side) == 9
    _, again = watch(Knowing(Reach(), 3), Reach(), "train", 5)
    assert torch.equal(again.embedding, Knowing(Reach()).task_embedding(again.task.position))
    assert watch(RandomAgent(family), family, "train", 3)[1].embedding is None


def test_who_has_no_picture_is_told_why():
    family = Reach()
    assert "has no task_embedding(memory)" in nothing_to_show(RandomAgent(family), 3)
    assert "a trial of one round" in nothing_to_show(Knowing(family), 1)
    with pytest.raises(ValueError, match="There is no embedding to show"):
        check_embedded(RandomAgent(family), 3)


def test_a_run_has_the_picture_where_there_is_one_and_says_nothing_elsewhere():
    family = Reach()
    for agent, shown in ((Knowing(family), True), (RandomAgent(family), False)):
        evaluated = {"train": watch(agent, family, "train", 5)}
        found = {picture.tag: picture for picture in pictures(family, evaluated, pytest.fail)}
        assert ("eval/train/embedding" in found) == shown
        if shown:
            assert found["eval/train/embedding"].file_name == "train_embedding.png"


def test_the_command_draws_the_embeddings_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run, file = tmp_path / "run", tmp_path / "new" / "embedding.png"
    agent = {"name": "PEARL", "hidden_sizes": [8], "encoder_sizes": [8], "embedding_loss": "siamese"}
    options = {"total_iterations": 0, "final_eval_tasks": 0, "eval_every": 0, "device": "cpu"}
    metarl.run(family="SparsePointRobot", agent=agent, run_dir=str(run), **options)
    assert main([str(run), "--tasks", "6", "--embedding", str(file), "--device", "cpu"]) == 0
    assert f"Written to {file}" in capsys.readouterr().out
    with Image.open(file) as image:
        assert image.format == "PNG"
    for wrong, sentence in (
        (str(run), "The picture of embeddings must be a .png"),
        ("pretrained:rl2_gridnavi", "RL2 has no"),
    ):
        name = file.with_suffix(".gif" if wrong == str(run) else ".png")
        assert main([wrong, "--embedding", str(name)]) == 2
        assert sentence in capsys.readouterr().err
