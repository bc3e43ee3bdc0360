"""Saving and loading lose nothing, are never torn, and say in a sentence what is wrong."""

import dataclasses
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from toy import TOY, Guess

import metarl
from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.rollout import run_trial
from metarl.training import checkpoint
from metarl.training.checkpoint import Counters
from metarl.training.config import parsing as config
from metarl.training.config.errors import ConfigError


def improve(agent: LearningAgent, iteration: int) -> None:
    key = rng.fold(rng.key(3), iteration)
    tasks = agent.family.sample_tasks(key, 16)
    agent.update(run_trial(agent, agent.family, tasks, key), 0.1)


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, LearningAgent]:
    """A run directory with its agent after two updates."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "config.yaml").write_text(TOY)
    read = config.read(run_dir / "config.yaml")
    agent = read.agent.build(read.family, read.seed, torch.device("cpu"))
    for iteration in range(2):
        improve(agent, iteration)
    checkpoint.save(run_dir, agent, Counters(2, 192, 1.5))
    return run_dir, agent


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_what_is_loaded_is_what_was_saved(run: tuple[Path, LearningAgent]):
    run_dir, agent = run
    loaded = metarl.load(run_dir)
    assert same(loaded.state_dict(), agent.state_dict())
    assert checkpoint.load_state(run_dir)[1] == Counters(2, 192, 1.5)
    assert isinstance(loaded.family, Guess) and loaded.config == agent.config


def test_a_loaded_agent_learns_on_as_the_saved_one_would(run: tuple[Path, LearningAgent]):
    run_dir, agent = run
    loaded = metarl.load(run_dir)
    improve(agent, 2)
    improve(loaded, 2)
    assert same(loaded.state_dict(), agent.state_dict())


def test_a_flipped_bit_is_noticed(run: tuple[Path, LearningAgent]):
    """Anywhere in the file: in the weights, where it would still be a number, and in the header."""
    path = run[0] / checkpoint.CHECKPOINT
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for place in torch.randint(len(whole), (200,), generator=generator).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(bytes(damaged))
        with pytest.raises(ConfigError) as error:
            checkpoint.load_state(run[0])
        assert len(str(error.value)) < 400 and "\n" not in str(error.value)
    path.write_bytes(whole)
    checkpoint.load_state(run[0])


def test_a_file_from_before_there_were_checksums_is_read(run: tuple[Path, LearningAgent], tmp_path: Path):
    state, counters = checkpoint.load_state(run[0])
    header = {"format": "1", "counters": json.dumps(dataclasses.asdict(counters))}
    safetensors.torch.save_file(state, tmp_path / checkpoint.CHECKPOINT, header)
    (tmp_path / "config.yaml").write_text((run[0] / "config.yaml").read_text())
    assert checkpoint.load_state(tmp_path)[1] == counters


def test_the_optimiser_is_saved_too(run: tuple[Path, LearningAgent]):
    assert any(name.startswith("optimizer.") for name in checkpoint.load_state(run[0])[0])


def test_a_failure_in_writing_keeps_the_checkpoint_before(
    run: tuple[Path, LearningAgent], monkeypatch: pytest.MonkeyPatch
):
    run_dir, agent = run
    before = checkpoint.load_state(run_dir)
    improve(agent, 2)

    def fail(_: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(run_dir, agent, Counters(3))
    after = checkpoint.load_state(run_dir)
    assert same(before[0], after[0]) and before[1] == after[1]


def test_tensors_that_share_memory_are_saved(tmp_path: Path, run: tuple[Path, LearningAgent]):
    class Flat(LearningAgent):
        def state_dict(self) -> dict[str, torch.Tensor]:
            flat = torch.arange(6.0)
            return {"a": flat[:4], "b": flat[2:], "c": flat.reshape(2, 3).T}

    flat = Flat()
    checkpoint.save(tmp_path, flat, Counters())
    assert same(checkpoint.load_state(tmp_path)[0], flat.state_dict())


def test_a_trained_agent_in_the_package(
    run: tuple[Path, LearningAgent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run_dir, agent = run
    monkeypatch.setattr(checkpoint, "PRETRAINED", tmp_path / "pretrained")
    arguments = [str(run_dir), "toy_guess"]
    assert checkpoint.main(arguments) == 2, "a run without an evaluation has no curve to show"
    metarl.evaluate(agent, agent.family, tasks=8).save(run_dir / "evaluation" / "test")
    folder = checkpoint.export_pretrained(run_dir, "toy_guess", tmp_path / "pretrained")
    loaded = metarl.load("pretrained:toy_guess")
    saved = agent.state_dict()
    assert same({k: v for k, v in saved.items() if k.startswith("net.")}, _net(loaded))
    kept = safetensors.torch.load_file(folder / "agent.safetensors")
    assert not [name for name in kept if name.startswith("optimizer.")]
    assert json.loads((folder / "curve.json").read_text())["test"]["summary"]["tasks"] == 8
    with pytest.raises(ConfigError, match="Did you mean 'pretrained:toy_guess'"):
        metarl.load("pretrained:toy_gues")


def _net(agent: LearningAgent) -> dict[str, torch.Tensor]:
    return {k: v for k, v in agent.state_dict().items() if k.startswith("net.")}


def test_shipped_agents_load():
    for name in checkpoint.pretrained():
        assert metarl.load(name).family is not None


def test_what_is_wrong_with_a_run_is_said_in_a_sentence(run: tuple[Path, LearningAgent], tmp_path: Path):
    run_dir, _ = run

    def sentence() -> str:
        with pytest.raises(ConfigError) as caught:
            metarl.load(run_dir)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    with pytest.raises(ConfigError, match="no run directory"):
        metarl.load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"has no config\.yaml"):
        metarl.load(tmp_path)
    (run_dir / "config.yaml").write_text(TOY.replace("hidden_size: 8", "hidden_size: 9"))
    assert "does not fit its config.yaml" in sentence() and "size mismatch" in sentence() and len(sentence()) < 500
    (run_dir / "config.yaml").write_text(TOY + "of_the_future: 1\n")
    assert "cannot be loaded" in sentence() and "of_the_future" in sentence()
    (run_dir / "config.yaml").write_text(TOY)
    file = run_dir / checkpoint.CHECKPOINT
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read" in sentence()
    safetensors.torch.save_file({"a": torch.zeros(1)}, file, {"format": "999"})
    assert "format 999" in sentence()
    for counters in ({}, {"counters": "no JSON"}, {"counters": '{"of_the_future": 1}'}):
        safetensors.torch.save_file({"a": torch.zeros(1)}, file, {"format": "1"} | counters)
        assert "its counters are damaged" in sentence()
    file.unlink()
    assert "has no checkpoint yet" in sentence()
