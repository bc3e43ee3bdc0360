"""R2D2: the contract of agents, what it replays and from where, that it goes on exactly, and that it learns."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from small_families import Corridor, Reach, TwoDoors
from torch import Tensor

import metarl
from metarl.agents.r2d2 import R2D2, R2D2Config
from metarl.agents.r2d2.replay import Batch, Sequences
from metarl.agents.r2d2.targets import n_step_double_targets, rescale
from metarl.core import rng
from metarl.core.batch_env import make_env
from metarl.core.family import TaskFamily
from metarl.core.rollout import Rollout, run_trial
from metarl.core.tree import leaves, take
from metarl.testing import check_agent
from metarl.train import main

CPU = torch.device("cpu")
ROWS = 6
CUT: dict[str, Any] = {"replay_whole": 4, "sequence_length": 4, "burn_in": 2, "n_step": 3}
"""Sequences of 4 steps that begin at 0, 2, 4 …, and the two steps before."""


def config(**changes: Any) -> R2D2Config:
    small = R2D2Config(
        meta_batch_size=ROWS, hidden_size=8, head_size=8, learning_starts=4, updates_per_iteration=3, batch_size=5,
        target_network_frequency=4, lr=0.01,
    )  # fmt: skip
    return dataclasses.replace(small, **changes)


def built(family: TaskFamily, seed: int = 1, **changes: Any) -> R2D2:
    return R2D2(config(**changes), family, seed)


def played(agent: R2D2, number: int = 0, rows: int = ROWS) -> Rollout:
    tasks = agent.family.sample_tasks(rng.key(number), rows)
    (rollout,) = run_trial(agent, agent.family, tasks, rng.key(100 + number))
    return rollout


def train(agent: R2D2, iterations: int, first: int = 0) -> list[dict[str, float]]:
    return [agent.update([played(agent, first + n)], n / 10) for n in range(iterations)]


def batch_of(agent: R2D2, part: int = 0, rows: int = ROWS) -> Batch:
    """The sequence `part` of the first trials of the ring."""
    slots = torch.arange(rows)
    return agent.replay.batch(Sequences(slots, torch.full_like(slots, part), slots), torch.ones(rows), agent.net.online)


def whole_values(agent: R2D2, rollout: Rollout) -> Tensor:
    """The values in all steps of a rollout, from the empty memory: ``(T, B, A)``."""
    encoder = agent.net.online.encoder
    return agent.net.values(encoder.raw(rollout.step, encoder.initial(rollout.mask.shape[1]))[0], [None, None])[0]


@pytest.mark.parametrize("memory", ["gru", "lstm", "rnn", "transformer", "fast_weights", "none", "reactive"])
def test_the_contract_of_agents(memory: str):
    check_agent(config(memory=memory), Corridor())


@pytest.mark.parametrize("memory", ["gru", "lstm", "fast_weights", "none"])
def test_the_contract_where_trials_are_replayed_in_sequences(memory: str):
    check_agent(config(memory=memory, transition_input=True, embed_size=6, **CUT), Corridor())


@pytest.mark.parametrize("family", ["GridNavi", "BernoulliBandit", "TMaze", "TabularMDP"])
def test_the_contract_on_families(family: str):
    check_agent(config(norm_obs=True), metarl.make(f"metarl/{family}-v0"))


class Shifted(Corridor):
    """Actions 5 and 6, in place of 0 and 1."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.Discrete(2, start=5)

    def step(self, task, state, action, key):
        return super().step(task, state, action - 5, key)


def test_actions_may_be_counted_from_another_number():
    check_agent(config(**CUT), Shifted())
    agents = [built(family) for family in (Corridor(), Shifted())]
    for agent in agents:
        train(agent, 3)
    for a, b in zip(agents[0].net.parameters(), agents[1].net.parameters(), strict=True):
        assert torch.equal(a, b)


# What is replayed


def test_trials_up_to_a_hundred_steps_are_replayed_whole():
    for steps, whole, parts in ((100, True, 1), (101, False, 2), (160, False, 3), (200, False, 4)):
        replay = R2D2(R2D2Config(), Corridor(1, steps)).replay
        assert (replay.whole, replay.parts) == (whole, parts)
        if not whole:
            assert (replay.length, replay.stride, replay.burn_in) == (80, 40, 40)
            assert (parts - 1) * 40 + 80 >= steps > (parts - 2) * 40 + 80, "the sequences reach the end, and no further"


def test_a_batch_of_whole_trials_is_what_was_played():
    agent = built(Corridor())
    rollout = played(agent)
    agent.replay.add(rollout, agent.net.online)
    batch, length = batch_of(agent), len(rollout.mask)
    torch.testing.assert_close(agent._values(batch)[0][:length], whole_values(agent, rollout))
    assert torch.equal(batch.action[:length], rollout.acted.action)
    assert torch.equal(batch.reward[:length], rollout.outcome.reward)
    assert torch.equal(batch.mask[:length], rollout.mask) and not bool(batch.mask[length:].any())


@pytest.mark.parametrize("memory", ["gru", "lstm", "fast_weights", "none"])
@pytest.mark.parametrize("part", [0, 1, 2, 4, 5])
def test_sequences_from_stored_states_have_the_values_of_whole_trials(memory: str, part: int):
    """While the network is the one that played, stored state and burn-in are the memory of the whole trial."""
    agent = built(Corridor(3, 6), memory=memory, transition_input=True, **CUT)
    rollout = played(agent)
    agent.replay.add(rollout, agent.net.online)
    wanted = whole_values(agent, rollout)[2 * part : 2 * part + 4]
    found = agent._values(batch_of(agent, part))[0][: len(wanted)]
    there = rollout.mask[2 * part : 2 * part + 4, :, None]
    assert bool(there.any())
    torch.testing.assert_close(found * there, wanted * there, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("number", [0, 1], ids=["online", "target"])
def test_a_burn_in_that_reaches_the_start_is_the_whole_replay(number: int):
    """With another network than the one that played, too: it does not need the stored state then."""
    agent = built(Corridor(3, 6), **CUT)
    rollout = played(agent)
    agent.replay.add(rollout, agent.net.online)
    with torch.no_grad():
        for net in (agent.net.online, agent.net.target):
            for place, parameter in enumerate(net.parameters()):
                parameter.add_(torch.sin(torch.arange(parameter.numel()) + place).reshape(parameter.shape))
    found = agent._values(batch_of(agent, part=1))[number]
    torch.testing.assert_close(found[:4], whole_values(agent, rollout)[2:6], rtol=1e-4, atol=1e-5)


def test_the_state_that_is_stored_is_the_one_that_acted():
    agent, family = built(Corridor(3, 6), **CUT), Corridor(3, 6)
    task = family.sample_tasks(rng.key(0), ROWS)
    env, memory, states = make_env(family, task, rng.key(1)), agent.begin(ROWS), []
    step, keys, steps, acts, outcomes, masks = env.reset(), torch.arange(ROWS), [], [], [], []
    while not env.all_done():
        states.append(memory.state)
        masks.append(env.alive.float())
        acted, memory = agent.act(memory, step, rng.fold(rng.key(2 + len(states)), keys))
        steps.append(step)
        acts.append(acted)
        outcome, step = env.step(acted.action)
        outcomes.append(outcome)
    join = lambda parts: type(parts[0])(*(torch.stack(x) for x in zip(*parts, strict=True)))  # noqa: E731
    agent.replay.add(Rollout(join(steps), join(acts), join(outcomes), torch.stack(masks), task), agent.net.online)
    for part in range(1, 4):
        torch.testing.assert_close(batch_of(agent, part).state, states[2 * part - 2], rtol=1e-4, atol=1e-5)


def test_stored_states_are_used_by_all_but_the_first_sequence():
    agent = built(Corridor(3, 6), **CUT)
    agent.replay.add(played(agent), agent.net.online)
    before = [agent._values(batch_of(agent, part))[0] for part in range(4)]
    agent.ring.stored["note.state.0"].add_(1.0)
    after = [agent._values(batch_of(agent, part))[0] for part in range(4)]
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, False, False]


def test_no_gradient_flows_into_the_burn_in():
    agent = built(Corridor(3, 6), **CUT)
    agent.replay.add(played(agent), agent.net.online)
    batch = batch_of(agent, part=2)
    inputs = [batch.burn_in.requires_grad_(), batch.raw.requires_grad_()]
    agent._values(batch._replace(burn_in=inputs[0], raw=inputs[1]))[0].sum().backward()
    assert inputs[0].grad is None and inputs[1].grad is not None


# Targets, loss and gradient


def test_new_trials_get_priorities_by_their_errors():
    agent = built(Corridor(), updates_per_iteration=1, learning_starts=50)
    rollout = played(agent)
    agent.update([rollout])
    with torch.no_grad():
        q = whole_values(agent, rollout)  # the network sees rewards at their new size
        reward = rollout.outcome.reward / agent.net.online.encoder.reward_size
        target = n_step_double_targets(reward, rollout.mask, q, q, agent.config.gamma, 5)
        value = q.gather(-1, rollout.acted.action[..., None]).squeeze(-1)
    for row in range(ROWS):
        errors = (target - value)[:, row][rollout.mask[:, row] > 0].abs()
        wanted = (0.9 * errors.max() + 0.1 * errors.mean()) ** 0.9
        torch.testing.assert_close(agent.replay.priorities.powers[row].float(), wanted, rtol=1e-4, atol=1e-6)
    assert not bool(agent.replay.priorities.powers[ROWS:].any())


@pytest.mark.parametrize("options", [{}, CUT], ids=["whole", "cut"])
def test_with_exponent_0_all_sequences_with_a_step_are_drawn_alike(options: dict[str, Any]):
    agent = built(Corridor(3, 6), priority_exponent=0.0, updates_per_iteration=1, learning_starts=50, **options)
    rollout = played(agent)
    agent.update([rollout])
    parts, replay = torch.arange(agent.replay.parts), agent.replay
    wanted = rollout.mask.sum(0)[:, None] > (parts * replay.stride)[None]  # (B, parts)
    assert torch.equal(replay.priorities.powers[: wanted.numel()].reshape(wanted.shape), wanted.double())


def test_the_target_network_rates_what_comes_after():
    agent = built(Corridor())
    agent.replay.add(played(agent), agent.net.online)
    batch, gamma = batch_of(agent), torch.tensor(0.9)
    agent.net.online.encoder.reward_size.fill_(1.0)
    value, target, mask = agent._learned(batch, gamma)
    with torch.no_grad():
        for parameter in agent.net.target.head.value.parameters():
            parameter.add_(1.0)
    same, other, _ = agent._learned(batch, gamma)
    following = torch.cat([mask[agent.config.n_step :], torch.zeros(agent.config.n_step, ROWS)])
    assert torch.equal(value, same) and torch.equal(target != other, following > 0)


def test_sequences_that_are_all_padding_are_never_drawn():
    agent = built(Corridor(3, 6), **CUT)
    rollout = played(agent)
    agent.update([rollout])
    powers = agent.replay.priorities.powers.reshape(-1, agent.replay.parts)[:ROWS]
    lengths = rollout.mask.sum(0)
    starts = torch.arange(agent.replay.parts) * 2
    assert torch.equal(powers > 0, starts < lengths[:, None]) and bool((lengths < 18).any())


def test_what_was_learned_from_gets_its_new_priority():
    agent = built(Corridor(), updates_per_iteration=1, learning_starts=1)
    minibatch, learned = agent.minibatch, []

    def noted(batch: Batch, gamma: Tensor) -> tuple[Tensor, Tensor]:
        metrics, priority = minibatch(batch, gamma)
        learned.append(torch.full_like(priority, 3.0))
        return metrics, learned[-1]

    agent.minibatch = noted  # type: ignore[assignment]
    agent.update([played(agent)])
    drawn, _ = agent.replay.draw(rng.fold(rng.fold(agent.key, 0), 0), agent.config.batch_size)
    found = agent.replay.priorities.powers == 3.0**agent.config.priority_exponent
    assert len(learned) == 1 and found.any() and found.sum() <= len(drawn.entry)


def test_what_is_beyond_the_longest_trial_is_padding():
    agent = built(Corridor(3, 6), **CUT)
    agent.replay.add(played(agent), agent.net.online)
    agent.ring.stored["mask"].fill_(1.0)
    replay = agent.replay
    for part in range(replay.parts):
        there = torch.arange(replay.length + replay.after) + part * replay.stride < agent.ring.steps
        assert torch.equal(batch_of(agent, part).mask, there[:, None].expand(-1, ROWS).float())
    assert not there.all()


def test_the_entries_of_the_ring_are_those_of_its_newest_trials():
    """A draw finds the trial whose priority it is, also after the ring has gone round."""
    agent = built(Corridor(), buffer_size=10, learning_starts=10, importance_exponent=0.0)
    for number in range(4):
        agent.replay.add(played(agent, number), agent.net.online)
    for number in range(14, 24):
        agent.replay.priorities.powers.zero_()
        agent.replay.priorities.put(torch.tensor([number % 10]), torch.ones(1))
        _, mine = agent.replay.draw(rng.key(0), 3)
        rollout = played(agent, number // ROWS)
        seen = agent.replay.batch(mine, torch.ones(3), agent.net.online).reward[: len(rollout.mask)]
        assert torch.equal(seen, rollout.outcome.reward[:, number % ROWS, None].expand(-1, 3))


def test_the_gradient_is_that_of_finite_differences():
    """Of the loss with its targets held fixed, as in the paper."""
    agent = built(Corridor(2, 3))
    agent.replay.add(played(agent), agent.net.online)
    agent.net.double()
    batch = Batch(*(x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in batch_of(agent)))
    batch = batch._replace(weight=torch.linspace(0.2, 1.0, ROWS, dtype=torch.float64))
    agent.net.online.encoder.reward_size.fill_(2.0)
    gamma = torch.tensor(0.9, dtype=torch.float64)
    _, fixed, mask = agent._learned(batch, gamma)

    def loss() -> Tensor:
        value = agent._learned(batch, gamma)[0]
        return (0.5 * (value - fixed) ** 2 * mask * batch.weight).sum() / mask.sum()

    agent.optimizer.step = lambda max_grad_norm: torch.zeros((), dtype=torch.float64)  # type: ignore[method-assign]
    agent._descend(batch, gamma)
    checked = 0
    for parameter in agent.net.online.parameters():
        assert parameter.grad is not None
        for place in range(0, parameter.numel(), max(1, parameter.numel() // 5)):
            with torch.no_grad():
                flat = parameter.view(-1)
                before = float(flat[place])
                flat[place] = before + 1e-5
                above = float(loss())
                flat[place] = before - 1e-5
                below = float(loss())
                flat[place] = before
            assert float(parameter.grad.view(-1)[place]) == pytest.approx((above - below) / 2e-5, rel=1e-5, abs=1e-9)
            checked += 1
    assert checked > 40


def test_padding_changes_no_gradient():
    agents = [built(Corridor()) for _ in range(2)]
    rollout = played(agents[0])
    padding = rollout.mask == 0
    assert bool(padding.any())
    spoiled = rollout._replace(outcome=rollout.outcome._replace(
        reward=torch.where(padding, 7.0, rollout.outcome.reward)))  # fmt: skip
    for agent, seen in zip(agents, (rollout, spoiled), strict=True):
        agent.update([seen])
    for a, b in zip(agents[0].net.parameters(), agents[1].net.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_head_is_dueling():
    """The bias of the value moves all values; the same number added to all advantages moves none."""
    head = built(Corridor()).net.online.head
    output, x = torch.randn(7, 8), torch.randn(7, head.of_step.in_features)
    before = head(output, x)
    with torch.no_grad():
        head.advantage.bias.add_(3.0)
        torch.testing.assert_close(head(output, x), before)
        head.value.bias.add_(3.0)
        torch.testing.assert_close(head(output, x), before + 3.0)
        torch.testing.assert_close(head(output, x).mean(-1), head.value(torch.relu(
            head.of_memory(output) + head.of_step(x)).chunk(2, -1)[0]).squeeze(-1))  # fmt: skip


def test_the_target_network_is_copied_every_so_many_gradient_steps():
    agent = built(Corridor(), updates_per_iteration=1, learning_starts=1, target_network_frequency=3)
    same = []
    for number in range(6):
        agent.update([played(agent, number)])
        pairs = zip(agent.net.online.parameters(), agent.net.target.parameters(), strict=True)
        same.append(all(torch.equal(a, b) for a, b in pairs))
    assert same == [False, False, True, False, False, True]


def test_it_waits_for_enough_trials():
    agent = built(Corridor(), learning_starts=2 * ROWS)
    first, second = train(agent, 2)
    assert "loss/value" not in first and first["loss/replayable"] == ROWS
    assert second["loss/value"] > 0.0 and agent.gradient_steps == 3


# Acting


def test_each_row_has_an_epsilon_of_the_ladder_that_stays():
    agent = built(BANDIT := metarl.make("metarl/BernoulliBandit-v0"))
    n = 2000
    task = BANDIT.sample_tasks(rng.key(0), n)
    env, memory, seen = make_env(BANDIT, task, rng.key(1)), agent.begin(n), []
    step = env.reset()
    for number in range(4):
        seen.append(memory.epsilon)
        acted, memory = agent.act(memory, step, rng.fold(rng.key(number), torch.arange(n)))
        step = env.step(acted.action)[1]
    assert bool((seen[0] == agent.mean_epsilon).all())
    assert torch.equal(seen[1], seen[2]) and torch.equal(seen[1], seen[3])
    place = (seen[1].log() / np.log(0.4) - 1.0) / 7.0  # is uniform
    torch.testing.assert_close(place.sort().values, torch.linspace(0, 1, n), rtol=0, atol=0.05)
    assert abs(float(seen[1].mean()) - agent.mean_epsilon) < 0.01


def test_log_probabilities_are_those_of_the_mixture():
    agent = built(Corridor(), epsilon=0.5, epsilon_alpha=0.0)
    rollout = played(agent)
    best = whole_values(agent, rollout).argmax(-1) == rollout.acted.action
    wanted = torch.where(best, 0.75, 0.25)
    torch.testing.assert_close(rollout.acted.log_prob.exp(), wanted)
    assert bool(best.any()) and not bool(best.all())


def test_the_value_is_in_the_units_of_rewards():
    agent = built(Corridor())
    agent.net.online.encoder.reward_size.fill_(4.0)
    with torch.no_grad():
        agent.net.online.head.value.bias.fill_(float(rescale(torch.tensor(25.0))))
        for weight in (agent.net.online.head.value.weight, agent.net.online.head.advantage.weight):
            weight.zero_()
    value = played(agent).acted.value
    torch.testing.assert_close(value, torch.full_like(value, 100.0))


def test_evaluations_are_greedy_unless_they_are_asked_not_to_be():
    family = Corridor()
    agent = built(family, epsilon=1.0, epsilon_alpha=0.0)
    default, greedy, sampled = (
        metarl.evaluate(agent, split="train", tasks=20, greedy=asked) for asked in (None, True, False)
    )
    assert default.greedy and greedy.greedy and not sampled.greedy
    assert np.array_equal(default.returns, greedy.returns) and not np.array_equal(default.returns, sampled.returns)


# Units, going on, learning


class InUnits(Corridor):
    """Rewards in another unit."""

    def __init__(self, unit: float) -> None:
        super().__init__()
        self.unit = unit

    def step(self, task, state, action, key):
        state, reward, over = super().step(task, state, action, key)
        return state, reward * self.unit, over


@pytest.mark.parametrize("unit", [2.0**10, 2.0**-12])
@pytest.mark.parametrize("options", [{}, CUT, {"value_rescaling": False}], ids=str)
def test_the_unit_of_rewards_changes_no_bit(unit: float, options: dict[str, Any]):
    agents = [built(family, **options) for family in (Corridor(), InUnits(unit))]
    for agent in agents:
        train(agent, 4)
    for a, b in zip(agents[0].net.parameters(), agents[1].net.parameters(), strict=True):
        assert torch.equal(a, b)
    a, b = (played(agent, 9).acted.value for agent in agents)
    assert torch.equal(a * unit, b)


@pytest.mark.parametrize("options", [{}, CUT], ids=str)
def test_a_resume_with_ring_and_priorities_is_exact(options: dict[str, Any]):
    """After the ring has gone round."""
    options = {"buffer_size": 20, **options}
    first, second = (built(Corridor(), **options) for _ in range(2))
    train(first, 5)
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    second.ring.load_state_dict({name: value.clone() for name, value in first.ring.state_dict().items()})
    assert train(first, 4, first=5) == train(second, 4, first=5)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_without_its_trials_it_begins_anew():
    """An agent that was loaded to go on elsewhere has no ring: old priorities then draw nothing."""
    agent, other = (built(Corridor(), learning_starts=1) for _ in range(2))
    train(agent, 5)
    other.load_state_dict(agent.state_dict())
    assert np.isfinite([*train(other, 2)[-1].values()]).all()
    drawn, _ = other.replay.draw(rng.key(0), 200)
    assert int(drawn.entry.max()) < 2 * ROWS


def test_a_trial_that_is_not_finite_is_never_drawn():
    agent = built(Corridor())
    rollout = played(agent)
    reward = rollout.outcome.reward.clone()
    reward[1, 2] = torch.nan
    agent.replay.add(rollout._replace(outcome=rollout.outcome._replace(reward=reward)), agent.net.online)
    batch = batch_of(agent)
    priority = agent._priority(batch, torch.tensor(0.9))
    assert [bool(p > 0) for p in priority] == [True, True, False, True, True, True]


def greedy_return(agent: R2D2) -> float:
    return float(metarl.evaluate(agent, split="train", tasks=200, step_curve=False).returns.sum(-1).mean())


def test_it_learns_to_try_a_door_and_stay_with_what_pays():
    """The best return is 0.5 + 3; without memory it would be 2."""
    family = TwoDoors()
    agent = built(family, batch_size=32, meta_batch_size=16, updates_per_iteration=5, hidden_size=16)
    for number in range(60):
        agent.update([played(agent, number, 16)], number / 60)
    assert greedy_return(agent) > 3.4


@pytest.mark.parametrize("options", [{}, CUT], ids=str)
def test_it_learns_when_to_wait_in_a_corridor(options: dict[str, Any]):
    """It pays to wait one place before the end, which lies elsewhere in each trial and is seen only by trying."""
    agent = built(Corridor(), batch_size=32, meta_batch_size=16, updates_per_iteration=8, hidden_size=16, **options)
    at_random = greedy_return(built(Corridor(), epsilon=1.0))
    for number in range(60):
        agent.update([played(agent, number, 16)], number / 60)
    assert greedy_return(agent) > max(at_random, 0.0) + 8.0


# What is refused


class Choices(Corridor):
    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.MultiDiscrete([2, 2])


@pytest.mark.parametrize("family", [Reach(), Choices()], ids=["Box", "MultiDiscrete"])
def test_other_actions_are_refused(family: TaskFamily):
    with pytest.raises(ValueError, match=r"^R2D2 needs Discrete actions, and those of \w+ are .*: choose RL2\.$"):
        config().build(family, 0, CPU)


def test_a_transformer_on_long_trials_is_refused():
    with pytest.raises(ValueError, match=r"replay_whole must be at least 101, .*, or choose another memory"):
        R2D2Config(memory="transformer").build(Corridor(1, 101), 0, CPU)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"burn_in": 41}, "burn_in must be at most half of sequence_length, 40, got 41"),
        ({"buffer_size": 3}, "buffer_size must be at least meta_batch_size = 6, got 3"),
        ({"learning_starts": 5000}, "buffer_size must be at least learning_starts = 5000, got 4096"),
        ({"memory": "reactive", "transition_input": True}, "transition_input must be false with memory 'reactive'"),
    ],
)
def test_options_that_do_not_fit_each_other(changes: dict[str, Any], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        config(**changes)


def test_the_program_says_so_in_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--family=metarl/Pendulum-v0", "--agent=R2D2"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "R2D2 needs Discrete actions" in said
    assert not list(tmp_path.rglob("config.yaml"))


def test_notes_of_trials_stay_with_them():
    ring = built(Corridor(), **CUT).ring
    agent = built(Corridor())
    for number in range(3):
        ring.add(played(agent, number), {"name": torch.arange(number * ROWS, (number + 1) * ROWS)})
    order, slots = ring.find(torch.arange(3, 15))
    assert torch.equal(ring.noted("name", slots), torch.arange(3, 15)) and torch.equal(order, torch.arange(12))
    assert len(leaves(ring.sample(rng.key(0), 4))) == len(leaves(take(played(agent), 0)))
