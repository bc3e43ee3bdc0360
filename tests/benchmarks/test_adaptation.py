"""The comparison of five families: who takes part, and the page that is written of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import adaptation
from benchmarks.adaptation import LEARNED, MULTI, SCRATCH, SUBJECTS, TUNED
from metarl.agents.reference.catalogue import baselines_for
from metarl.agents.sb3.config import PPOConfig
from metarl.core import rng
from metarl.evaluation.curve import AdaptationCurve
from metarl.report.comparison import Comparison
from metarl.training.checkpoint import Counters, save
from metarl.training.config import parsing as config


@pytest.mark.parametrize("name", SUBJECTS)
def test_everyone_plays_the_same_family(name: str):
    subject = SUBJECTS[name]
    configs = [config.read(preset) for preset in (subject.rl2, subject.maml, subject.ppo)]
    options = [{k: v for k, v in vars(c.family).items() if isinstance(v, (int, float, str))} for c in configs]
    assert len({type(c.family) for c in configs}) == 1 and options[0] == options[1] == options[2]
    assert set(subject.baselines) <= set(baselines_for(configs[0].family))
    overridden = any(option.startswith("--train_split=train") for option in subject.options)
    assert all(c.train_split == "train" or overridden for c in configs), "held-out tasks are held out"


def test_the_seeds_of_stable_baselines3_play_in_three_ways(tmp_path: Path):
    """Fine-tuned and multi-task share what was trained; from scratch begins with what a seed begins with."""
    runs = []
    for seed in adaptation.SEEDS:
        run = tmp_path / str(seed)
        parsed = config.parse(["--config=ppo_gridnavi", f"--seed={seed}", "--agent.test_steps=1"])
        agent = parsed.config.agent.build(parsed.config.family, seed, torch.device("cpu"))
        before = agent.state_dict()["net.action_net.bias"].clone()
        agent.load_state_dict(agent.state_dict() | {"net.action_net.bias": before + 1.0})
        run.mkdir()
        (run / "config.yaml").write_text(parsed.text())
        save(run, agent, Counters(env_steps=7))
        runs.append(run)
    tuned, scratch, multi = adaptation.ppo_lines(runs)
    assert (tuned.name, scratch.name, multi.name) == (TUNED, SCRATCH, MULTI)
    for trained, new, alone in zip(tuned.agents, scratch.agents, multi.agents):
        biases = [agent.state_dict()["net.action_net.bias"] for agent in (trained, new, alone)]
        torch.testing.assert_close(biases[0], biases[2])
        assert not torch.allclose(biases[0], biases[1])
        assert isinstance(trained.config, PPOConfig)
        assert (trained.config.test_steps, new.config.test_steps, alone.config.test_steps) == (1, 1, 0)
    task = tuned.family.sample_tasks(rng.key(0), 2)
    assert not tuned.agents[0].begin(2, task).learned


def test_the_page_has_every_number(tmp_path: Path):
    def curve(value: float, split: str) -> AdaptationCurve:
        points = {"episodes": np.arange(2.0), "env_steps": 30.0 * np.arange(2), "labels": ("episode 1", "episode 2")}
        array = np.full((1, 3, 2), value, dtype=np.float32)
        bounds = {"random": np.zeros(3, dtype=np.float32), "oracle": np.full(3, 9.0, dtype=np.float32)}
        return AdaptationCurve(array, agent="A", family="F()", split=split, greedy=False, **points, **bounds)

    agents = [*LEARNED, *SUBJECTS["gridnavi"].baselines]
    curves = {name: {split: curve(n + 0.25, split) for split in adaptation.SPLITS} for n, name in enumerate(agents)}
    comparisons = {"gridnavi": Comparison(curves, {name: f"budget of {name}" for name in agents})}
    text = adaptation.page(comparisons, 400, 16)
    row = next(line for line in text.splitlines() if line.startswith("| GridNavi | ood |"))
    cells = [cell.strip() for cell in row.split("|")[3:-1]]
    assert [cell.partition(" ")[0] for cell in cells[:5]] == ["0.250", "1.25", "2.25", "3.25", "4.25"]
    assert cells[5:] == ["5.25", "bayes_optimal 6.25"]
    assert "budget of RL²" in text and "400 tasks" in text and "16 of them" in text
    adaptation.draw(comparisons, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
