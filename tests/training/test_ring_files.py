"""The files of a ring of trials: what goes on from them is what was there, and what is missing is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from metarl.agents.rl2 import RL2Config
from metarl.core import rng
from metarl.core.rollout import Rollout, run_trial
from metarl.core.tree import leaves
from metarl.envs.bandits.bernoulli import BernoulliBandit
from metarl.learning import ranks
from metarl.learning.trial_ring import TrialRing
from metarl.training import ring_files
from metarl.training.config.errors import ConfigError
from metarl.training.state_file import Damaged

CPU = torch.device("cpu")
FAMILY = BernoulliBandit(num_arms=2, episodes_per_trial=3)


def played(rows: int, seed: int) -> Rollout:
    agent = RL2Config(meta_batch_size=4, hidden_size=4).build(FAMILY, 0, CPU)
    (rollout,) = run_trial(agent, FAMILY, FAMILY.sample_tasks(rng.key(seed), rows), rng.key(seed))
    return rollout


def restored(folder: Path, iteration: int, capacity: int = 10) -> TrialRing:
    ring = TrialRing(capacity, FAMILY)
    ring_files.restore(folder, ring, iteration, CPU)
    return ring


def same(a: TrialRing, b: TrialRing) -> bool:
    samples = [leaves(ring.sample(rng.key(5), 50)) for ring in (a, b)]
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(*samples, strict=True))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "replay").iterdir())


@pytest.mark.parametrize("rows", [3, 4, 10, 25])
@pytest.mark.parametrize("largest", [1, 1000, 2**28])
def test_every_checkpoint_goes_on_with_its_own_trials(tmp_path, monkeypatch, rows: int, largest: int):
    monkeypatch.setattr(ring_files, "LARGEST_PART", largest)
    ring = TrialRing(10, FAMILY)
    for number in range(1, 7):
        ring.add(played(rows, number))
        if number % 2 == 0:
            ring_files.save(tmp_path, ring, number)
            ring_files.prune(tmp_path, ring, number)
            assert same(restored(tmp_path, number), ring)
    total = sum((tmp_path / "replay" / name).stat().st_size for name in names(tmp_path))
    assert len(names(tmp_path)) <= 20 and total < 20 * 2000


def test_only_new_trials_are_written(tmp_path):
    ring = TrialRing(100, FAMILY)
    for number in (1, 2, 3):
        ring.add(played(4, number))
        ring_files.save(tmp_path, ring, number)
        ring_files.save(tmp_path, ring, number)  # as at the end of a run
    assert names(tmp_path) == [f"{n + 1}_{4 * n}-{4 * n + 4}_0of1.safetensors" for n in range(3)]


def test_an_older_checkpoint_that_is_kept_goes_on_too(tmp_path):
    rings = {}
    ring = TrialRing(10, FAMILY)
    for number in range(1, 9):
        ring.add(played(4, number))
        ring_files.save(tmp_path, ring, number)
        ring_files.prune(tmp_path, ring, max(1, number - 2))
        rings[number] = TrialRing(10, FAMILY)
        rings[number].load_state_dict(ring.state_dict())
    for number in (6, 7, 8):
        assert same(restored(tmp_path, number), rings[number])
    assert len(names(tmp_path)) == 5, "the parts from 16 to 32"


def test_what_was_written_for_a_checkpoint_that_was_never_made_is_replaced(tmp_path):
    ring = TrialRing(10, FAMILY)
    for number in (1, 2, 3):
        ring.add(played(4, number))
        ring_files.save(tmp_path, ring, number)
    again = restored(tmp_path, 1)
    again.add(played(4, 99))
    ring_files.save(tmp_path, again, 4)
    assert names(tmp_path) == ["1_0-4_0of1.safetensors", "4_4-8_0of1.safetensors"]
    assert same(restored(tmp_path, 4), again)


def test_a_checkpoint_without_new_trials_goes_on(tmp_path):
    ring = TrialRing(10, FAMILY)
    ring.add(played(4, 1))
    for number in (1, 2, 3):
        ring_files.save(tmp_path, ring, number)
    assert same(restored(tmp_path, 3), ring) and same(restored(tmp_path, 2), ring)


def test_missing_trials_are_one_sentence(tmp_path):
    ring = TrialRing(10, FAMILY)
    for number in (1, 2):
        ring.add(played(4, number))
        ring_files.save(tmp_path, ring, number)
    (tmp_path / "replay" / names(tmp_path)[0]).unlink()
    for iteration in (2, 7):
        with pytest.raises(ConfigError, match=r"cannot continue: .* lacks trials .* Copy the folder 'replay'"):
            restored(tmp_path, iteration)
    with pytest.raises(ConfigError, match="cannot continue"):
        restored(tmp_path / "nowhere", 2)


@pytest.mark.parametrize("missing", [0, 1, 3])
def test_each_of_several_parts_of_a_checkpoint_is_missed(tmp_path, monkeypatch, missing: int):
    monkeypatch.setattr(ring_files, "LARGEST_PART", 1)
    ring = TrialRing(10, FAMILY)
    ring.add(played(4, 1))
    ring_files.save(tmp_path, ring, 1)
    (tmp_path / "replay" / names(tmp_path)[missing]).unlink()
    with pytest.raises(ConfigError, match="lacks trials"):
        restored(tmp_path, 1)


def test_damaged_trials_are_not_read(tmp_path):
    ring = TrialRing(10, FAMILY)
    ring.add(played(4, 1))
    ring_files.save(tmp_path, ring, 1)
    path = tmp_path / "replay" / names(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(Damaged, match="does not match its checksum"):
        restored(tmp_path, 1)


def test_another_number_of_processes_is_refused(tmp_path, monkeypatch):
    ring = TrialRing(10, FAMILY)
    ring.add(played(4, 1))
    ring_files.save(tmp_path, ring, 1)
    monkeypatch.setattr(ranks, "world_size", lambda: 2)
    with pytest.raises(ConfigError, match=r"must be continued with --nproc_per_node 1 of torchrun, since .*, got 2"):
        restored(tmp_path, 1)


def test_an_agent_without_a_ring_writes_nothing(tmp_path):
    ring_files.save(tmp_path, None, 1)
    ring_files.prune(tmp_path, None, 1)
    ring_files.restore(tmp_path, None, 1, CPU)
    assert not list(tmp_path.iterdir())
