"""The one loop: what an agent sees, masks, rounds, and accounts by episode."""

import pytest
import torch
from small_families import Corridor, Length, TwoDoors

from metarl.core import rng
from metarl.core.batch_env import BatchEnv
from metarl.core.rollout import (
    Acted,
    NotFinite,
    TrialProtocol,
    collect,
    episode_index,
    episode_lengths,
    episode_returns,
    first_not_finite,
    play_rounds,
    run_trial,
)


class Scripted:
    """Walks on with probability `p` drawn from its key; its memory counts its steps; keeps what it was shown."""

    def __init__(self, p: float = 1.0, protocol: TrialProtocol | None = None) -> None:
        self.p, self.protocol = p, protocol or TrialProtocol()
        self.shown, self.adapted, self.truth = [], [], None

    def begin(self, num_tasks, task=None):
        self.truth = task
        return torch.zeros(num_tasks * self.protocol.envs_per_task)

    def act(self, memory, step, key, greedy=False):
        self.shown.append(step)
        action = (rng.uniform(key, 1).squeeze(-1) < self.p).to(torch.int64)
        return Acted(action, torch.zeros(len(action)), memory), memory + 1

    def adapt(self, memory, rollout):
        self.adapted.append(rollout)
        return memory + 100

    def update(self, trial, progress=0.0):
        return {}


LENGTHS = Length(torch.tensor([1, 2, 4, 9]))


def test_shapes_mask_and_accounts():
    env = BatchEnv(Corridor(episodes_per_trial=2), LENGTHS, rng.key(0))
    rollout, memory = collect(Scripted(), torch.zeros(4), env, rng.key(1))
    assert rollout.mask.shape == (12, 4) and rollout.step.obs.shape == (12, 4, 2)
    assert rollout.mask.sum(0).tolist() == [2, 4, 8, 12]
    assert memory.tolist() == [12.0] * 4
    assert rollout.acted.value[:, 0].tolist() == list(range(12)), "each act got the memory of the act before"
    assert episode_lengths(rollout, 2).tolist() == [[1, 1], [2, 2], [4, 4], [6, 6]]
    returns = episode_returns(rollout, 2)
    expected = torch.tensor([1, 3, 10, 21])  # 1 + 2 + … + length, plus noise below 0.01 a step
    assert bool(((returns - expected[:, None]) >= 0).all()) and bool(((returns - expected[:, None]) < 0.06).all())
    assert episode_index(rollout)[:5, 1].tolist() == [0, 0, 1, 1, 2]


def test_padding_does_not_count():
    env = BatchEnv(Corridor(episodes_per_trial=2), LENGTHS, rng.key(0))
    rollout, _ = collect(Scripted(), torch.zeros(4), env, rng.key(1))
    reward = torch.where(rollout.mask > 0, rollout.outcome.reward, 1000.0)
    changed = rollout._replace(outcome=rollout.outcome._replace(reward=reward))
    assert torch.equal(episode_returns(rollout, 2), episode_returns(changed, 2))


def test_padding_that_is_not_finite_is_found_where_nothing_else_is():
    """It spoils an update, since 0 times nan is nan, and would be taken for the update's own fault."""
    env = BatchEnv(Corridor(episodes_per_trial=2), LENGTHS, rng.key(0))
    rollout, _ = collect(Scripted(), torch.zeros(4), env, rng.key(1))
    assert first_not_finite([rollout]) is None
    reward = torch.where(rollout.mask > 0, rollout.outcome.reward, torch.nan)
    padded = rollout._replace(outcome=rollout.outcome._replace(reward=reward))
    ended = int(rollout.mask[:, 0].sum())
    assert first_not_finite([rollout, padded]) == NotFinite(
        "reward", f"step {ended + 1}, row 0 of 4: Length(length=[1]); round 2 of 2, after the row's last episode"
    )
    reward = reward.index_fill(0, torch.tensor([0]), torch.inf)
    both = rollout._replace(outcome=rollout.outcome._replace(reward=reward))
    place = "step 1, row 0 of 4: Length(length=[1]); round 2 of 2"
    assert first_not_finite([padded, both]) == NotFinite("reward", place)


def test_what_the_agent_is_shown_is_what_is_stacked():
    agent = Scripted()
    rollout, _ = collect(agent, torch.zeros(4), BatchEnv(Corridor(), LENGTHS, rng.key(0)), rng.key(1))
    assert all(torch.equal(torch.stack(shown), kept) for shown, kept in zip(zip(*agent.shown), rollout.step))
    # The previous reward, action and ending are those of the step before, also across the ends of episodes.
    step, outcome = rollout.step, rollout.outcome
    assert torch.equal(step.prev_reward[1:], outcome.reward[:-1])
    assert torch.equal(step.prev_action[1:], rollout.acted.action[:-1])
    assert torch.equal(step.prev_done[1:] > 0, (outcome.terminated | outcome.truncated)[:-1])


def test_a_row_draws_the_same_in_any_batch():
    agent, family = Scripted(p=0.5), Corridor()
    both, _ = collect(agent, torch.zeros(4), BatchEnv(family, LENGTHS, rng.key(0)), rng.key(1))
    one, _ = collect(agent, torch.zeros(1), BatchEnv(family, Length(LENGTHS.length[:1]), rng.key(0)), rng.key(1))
    steps = one.mask.shape[0]
    assert torch.equal(both.acted.action[:steps, :1], one.acted.action)
    assert not torch.equal(both.acted.action[:, 0], both.acted.action[:, 3]), "rows draw their own"


def test_a_trial_of_several_rounds():
    agent = Scripted(p=0.5, protocol=TrialProtocol(rounds=3, episodes=2, envs_per_task=2))
    trial = run_trial(agent, Corridor(), LENGTHS, rng.key(0))
    assert len(trial) == 3 and len(agent.adapted) == 2, "adapt stands between rounds"
    assert torch.equal(agent.truth.length, LENGTHS.length)
    for rollout in trial:
        assert rollout.task.length.tolist() == [1, 1, 2, 2, 4, 4, 9, 9], "rows are task-major"
        assert rollout.mask.shape[1] == 8
    assert trial[1].acted.value[0, 0] == trial[0].mask.shape[0] + 100, "the adapted memory acts in the next round"
    assert not torch.equal(trial[0].acted.action[:5], trial[1].acted.action[:5]), "rounds have noise of their own"
    actions = trial[0].acted.action
    assert not torch.equal(actions[:, ::2], actions[:, 1::2]), "rows of one task have noise of their own"


def test_after_a_greedy_round_the_memory_is_that_of_the_sampled_one():
    class Marked(Scripted):
        def act(self, memory, step, key, greedy=False):
            acted, memory = super().act(memory, step, key)
            return acted, memory + 1000 * greedy

    agent, family = Marked(protocol=TrialProtocol(rounds=2, episodes=3)), TwoDoors()
    first, last = play_rounds(agent, family, family.sample_tasks(rng.key(0), 5), rng.key(0), greedy=True)
    assert first.memory.tolist() == [3.0] * 5 and torch.equal(agent.adapted[0].mask, first.learned.mask)
    assert last.played.acted.value[0].tolist() == [103.0] * 5


def test_arguments_overrule_the_protocol():
    agent = Scripted(protocol=TrialProtocol(rounds=3, episodes=2))
    trial = run_trial(agent, TwoDoors(), TwoDoors().sample_tasks(rng.key(0), 5), rng.key(0), rounds=1, episodes=7)
    assert len(trial) == 1 and trial[0].mask.shape == (7, 5)


def test_episodes_default_to_the_familys():
    family = TwoDoors(episodes_per_trial=6)
    (rollout,) = run_trial(Scripted(), family, family.sample_tasks(rng.key(0), 2), rng.key(0))
    assert rollout.mask.shape[0] == 6


@pytest.mark.parametrize("seed", [0, 1])
def test_a_trial_follows_from_its_key(seed: int):
    first, second, other = (run_trial(Scripted(0.5), Corridor(), LENGTHS, rng.key(s))[0] for s in (seed, seed, 2))
    assert torch.equal(first.acted.action, second.acted.action)
    assert torch.equal(first.outcome.reward, second.outcome.reward)
    assert first.mask.shape != other.mask.shape or not torch.equal(first.outcome.reward, other.outcome.reward)
