"""`metarl dataset` and `metarl.load_histories`: what is read is what was played, and damage is a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded import written
from small_families import Corridor, TwoDoors
from torch import Tensor

import metarl
from metarl.agents import MAMLConfig
from metarl.agents.family_extras import baseline
from metarl.agents.random import RandomAgent
from metarl.cli.studies.dataset import main
from metarl.core import rng
from metarl.core.rollout import play_rounds, run_trial
from metarl.core.tree import leaves, take
from metarl.envs.grids.dark_room import DarkRoom
from metarl.learning.histories.history import History, history_of
from metarl.learning.histories.index import INDEX, _digest
from metarl.studies.dataset.recording import HISTORIES

GRID = ["q_learning", "--family", "DarkRoom", "--tasks", "5", "--episodes", "6", "--shard_size", "4"]


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two histories of Q-learning on each of five goals, in shards of 4, 4 and 2."""
    folder = tmp_path_factory.mktemp("data") / "grid"
    assert main([*GRID, "--trials", "2", "--seed", "3", "--out", str(folder), "--quiet", "--device", "cpu"]) == 0
    return folder


def test_a_history_is_the_trial_that_was_played(grid: Path):
    """Bit for bit, and row i as if it were played alone: task i % tasks, with the noise of row i."""
    histories = metarl.load_histories(grid)
    read = list(histories.batches(3))
    assert [batch.mask.shape[1] for batch in read] == [3, 1, 3, 1, 2] and len(histories) == 10
    assert isinstance(histories.family, DarkRoom) and histories.index.agent == "q_learning"
    family = DarkRoom()
    key = rng.fold(rng.fold(rng.key(3), HISTORIES), 1)
    for number in (0, 5, 9):
        batch = histories.shard(number // 4).rows(slice(number % 4, number % 4 + 1))
        (rollout,) = run_trial(baseline("q_learning", family), family, batch.task, key, episodes=6, first_task=number)
        assert torch.equal(batch.obs, rollout.step.obs) and torch.equal(batch.action, rollout.acted.action)
        assert torch.equal(batch.reward, rollout.outcome.reward)
        assert torch.equal(batch.truncated, rollout.outcome.truncated) and not batch.terminated.any()
        best = [family.optimal_action(batch.task, obs) for obs in batch.obs]
        assert torch.equal(batch.optimal, torch.stack(best))
        for mine, theirs in zip(batch.inputs(family.action_space), rollout.step, strict=True):
            assert torch.equal(mine, theirs), "an agent that lives through the history sees what the player saw"
    goals = torch.cat([batch.task.goal for batch in read])
    assert torch.equal(goals[:5], goals[5:]) and len(goals.unique(dim=0)) == 5


def test_episodes_of_different_lengths_are_counted(tmp_path: Path):
    family = Corridor()
    task = family.sample_tasks(rng.key(0), 20)
    (rollout,) = run_trial(RandomAgent(family), family, task, rng.key(1))
    history = history_of([rollout], family, task)
    assert history.optimal == () and float(history.mask.sum()) == float(rollout.mask.sum())
    for row in range(20):
        episode, step = 0, 0
        for t in range(int(history.mask[:, row].sum())):
            assert (int(history.episode[t, row]), int(history.step[t, row])) == (episode, step)
            done = bool(history.done[t, row])
            episode, step = (episode + 1, 0) if done else (episode, step + 1)
        assert episode == 3
    padding = history.mask == 0
    assert bool(padding.any()) and all(not leaf[padding].any() for leaf in leaves(history._replace(task=())))


def test_the_rounds_of_a_learner_are_one_history():
    """Rounds follow each other, and in a round the rows that play a task side by side."""
    family = Corridor(episodes_per_trial=2)
    agent = MAMLConfig(meta_batch_size=3, hidden_sizes=(4,), fast_batch_size=2, inner_steps=1).build(
        family, 0, torch.device("cpu")
    )
    task = family.sample_tasks(rng.key(0), 3)
    trial = [each.played for each in play_rounds(agent, family, task, rng.key(1))]
    history = history_of(trial, family, task)
    for number in range(3):
        rows = [(rollout, 2 * number + row) for rollout in trial for row in (0, 1)]
        alone = [rollout.outcome.reward[:, row][rollout.mask[:, row] > 0] for rollout, row in rows]
        length = int(history.mask[:, number].sum())
        assert torch.equal(history.reward[:length, number], torch.cat(alone)) and length < len(history.mask) + 1
        assert int(history.episode[length - 1, number]) == sum(
            int((rollout.step.prev_done[:, row] * rollout.mask[:, row]).sum()) + 1 for rollout, row in rows
        ) - 1  # fmt: skip


def test_only_keeps_what_is_wanted_in_its_order():
    family = Corridor()
    task = family.sample_tasks(rng.key(0), 9)
    history = history_of(run_trial(RandomAgent(family), family, task, rng.key(1)), family, task)
    kept = history.only(history.episode % 2 == 0)
    for row in range(9):
        wanted = (history.episode[:, row] % 2 == 0) & (history.mask[:, row] > 0)
        length = int(wanted.sum())
        assert torch.equal(kept.mask[:, row], (torch.arange(len(kept.mask)) < length).float())
        for mine, theirs in zip(leaves(kept._replace(task=())), leaves(history._replace(task=())), strict=True):
            assert torch.equal(mine[:length, row], theirs[wanted, row])


def test_random_batches_are_all_histories_once(grid: Path):
    histories = metarl.load_histories(grid)

    def actions(key: Tensor | None) -> list[list[int]]:
        return [row.tolist() for batch in histories.batches(4, key) for row in batch.action.T]

    plain, shuffled, again = (actions(key) for key in (None, rng.key(1), rng.key(1)))
    assert sorted(plain) == sorted(shuffled) and plain != shuffled and shuffled == again


def test_histories_do_not_depend_on_shards(grid: Path, tmp_path: Path):
    """A row of a shard is the same row in a larger one."""
    other = tmp_path / "other"
    assert main([*GRID[:-1], "100", "--trials", "2", "--seed", "3", "--out", str(other), "--quiet"]) == 0
    (whole,) = metarl.load_histories(other).batches(100)
    parts = list(metarl.load_histories(grid).batches(4))
    assert torch.equal(whole.action, torch.cat([part.action for part in parts], dim=1))


def test_one_shard_at_a_time_is_in_memory(grid: Path):
    histories = metarl.load_histories(grid)
    first = histories.shard(0)
    assert histories.shard(0) is first and histories.shard(1) is not first
    assert histories._last is not None and histories._last[0] == 1


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))


def forged(folder: Path, change: dict[str, Any]) -> None:
    """Another index, with a checksum that fits."""
    plain = json.loads((folder / INDEX).read_text()) | change
    del plain["checksum"]
    (folder / INDEX).write_text(json.dumps(plain | {"checksum": _digest(plain)}))


FIRST = "histories_00000.safetensors"
ELSEWHERE = {"file": "../x.safetensors", "histories": 1, "steps": 1, "bytes": 9, "sha256": ""}
BANDIT = {"name": "metarl/BernoulliBandit-v0"}


def edited(folder: Path, edit: Callable[[str], str]) -> None:
    (folder / INDEX).write_text(edit((folder / INDEX).read_text()))


def shapes(folder: Path) -> dict[str, Any]:
    return {"fields": json.loads((folder / INDEX).read_text())["fields"] | {"obs": ["float32", [3]]}}


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a flipped bit": (lambda at: flip(at / FIRST), "does not match its checksum in the index"),
    "gone": (lambda at: (at / FIRST).unlink(), "it cannot be read"),
    "exchanged": (lambda at: (at / "histories_00001.safetensors").replace(at / FIRST), "does not match its checksum"),
    "index changed": (lambda at: edited(at, lambda text: text.replace("train", "tests")), "match its checksum"),
    "index cut": (lambda at: edited(at, lambda text: text[:500]), "it is not an index of histories"),
    "no index": (lambda at: (at / INDEX).unlink(), "has no histories"),
    "elsewhere": (lambda at: forged(at, {"shards": [ELSEWHERE]}), "fields are missing, unknown or invalid"),
    "later format": (lambda at: forged(at, {"format": 2}), "have format 2; this version of metarl reads 1"),
    "other shapes": (lambda at: forged(at, shapes(at)), "its tensors do not match the index"),
    "other family": (lambda at: forged(at, {"family": BANDIT}), "are of DarkRoom.*, not of BernoulliBandit"),
    "unknown family": (lambda at: forged(at, {"family": {"name": "theirs/Mine-v0"}}), "cannot be made: Unknown task"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_one_sentence(what: str, grid: Path, tmp_path: Path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in grid.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    damage, sentence = DAMAGES[what]
    damage(folder)
    with pytest.raises(ValueError, match=sentence) as caught:
        next(iter(metarl.load_histories(folder).batches(2)))
    assert "\n" not in str(caught.value)


def test_nothing_is_left_of_histories_that_were_not_finished(tmp_path: Path):
    class Stops(RandomAgent):
        def act(self, memory: Any, step: Any, key: Any, greedy: bool = False) -> Any:
            if int(rng.integers(key[:1], 1, 9)) == 0:
                raise KeyboardInterrupt
            return super().act(memory, step, key, greedy)

    family = TwoDoors(50)
    with pytest.raises(KeyboardInterrupt):
        written(Stops(family), family, tmp_path / "out", tasks=8, shard_size=2)
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_are_not_finite_are_not_written(tmp_path: Path):
    class Spoiled(TwoDoors):
        def step(self, task: Any, state: Any, action: Tensor, key: Any) -> Any:
            state, reward, ended = super().step(task, state, action, key)
            return state, torch.where(action == 1, torch.nan, reward), ended

    family = Spoiled()
    with pytest.raises(ValueError, match=r"reward is not finite .*nothing is written"):
        written(RandomAgent(family), family, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["random"], "A ready-made agent such as 'random' needs a family to play"),
        (["thomson", "--family", "BernoulliBandit"], "Unknown baseline for BernoulliBandit: 'thomson'."),
        (["random", "--family", "DarkRom"], "Unknown task family: 'DarkRom'. Did you mean 'DarkRoom'?"),
        (["random", "--family", "DarkRoom", "--set", "size=3"], "Unknown option of family DarkRoom: 'size'"),
        (["random", "--family", "DarkRoom", "--set", "size"], "--set needs NAME=VALUE"),
        (["random", "--family", "DarkRoom", "--split", "tset"], "Unknown split of DarkRoom: 'tset'"),
        (["random", "--family", "DarkRoom", "--trials", "0"], "trials must be at least 1, got 0."),
        (["random", "--family", "DarkRoom", "--episodes", str(10**12)], "A shard needs about"),
        (["pretrained:rl2_gridnavi", "--family", "BernoulliBandit"], "This RL2 was made for observations"),
        (["runs/nothing"], "There is no run directory 'runs/nothing'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([*words, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith(f"metarl dataset: {sentence}") and err.count("\n") == 1, err
    assert list(tmp_path.iterdir()) == []


def test_histories_are_never_overwritten(grid: Path, capsys: pytest.CaptureFixture[str]):
    before = (grid / INDEX).read_bytes()
    assert main([*GRID, "--out", str(grid)]) == 2
    assert "This path already exists" in capsys.readouterr().err
    assert (grid / INDEX).read_bytes() == before and len(list(grid.iterdir())) == 4


def test_a_trained_agent_plays_the_family_of_its_training(tmp_path: Path):
    out = tmp_path / "out"
    assert main(["pretrained:rl2_gridnavi", "--tasks", "4", "--split", "all", "--out", str(out), "--quiet"]) == 0
    histories = metarl.load_histories(out)
    (batch,) = histories.batches(9)
    assert histories.index.family["name"] == "metarl/GridNavi-v0" and batch.mask.shape == (60, 4)
    assert isinstance(batch, History) and take(batch.task, 0) is not None
