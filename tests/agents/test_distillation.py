"""Algorithm Distillation: its batches, its loss, its context, and a learner that it copies; tabular Q-learning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from recorded import written
from small_families import Corridor, TwoDoors
from torch import Tensor

import metarl
from metarl.agents import AD, ADConfig
from metarl.agents.imitation.distillation import cut, thinned, windows
from metarl.agents.random import FixedAgent, RandomAgent, scripted
from metarl.agents.reference.q_learning import QLearning
from metarl.core import rng
from metarl.core.family import TaskFamily
from metarl.core.rollout import episode_returns, run_trial
from metarl.core.tree import take
from metarl.learning.histories.history import History, history_of
from metarl.testing import check_agent
from metarl.train import main

SMALL: dict[str, Any] = {"meta_batch_size": 8, "hidden_size": 8, "num_minibatches": 2}
CPU = torch.device("cpu")


def build(family: TaskFamily, folder: Path | str = "", **options: Any) -> AD:
    agent = ADConfig(**SMALL | {"histories": str(folder)} | options).build(family, 0, CPU)
    assert isinstance(agent, AD)
    return agent


@pytest.fixture(scope="module")
def corridor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Histories of twelve episodes of various lengths, in two shards."""
    family = Corridor()
    folder = tmp_path_factory.mktemp("data") / "corridor"
    return written(RandomAgent(family), family, folder, tasks=12, episodes=12, shard_size=8)


def played(rows: int = 6, episodes: int = 12) -> History:
    family = Corridor()
    task = family.sample_tasks(rng.key(0), rows)
    return history_of(run_trial(RandomAgent(family), family, task, rng.key(1), episodes=episodes), family, task)


@pytest.mark.parametrize("options", [{}, {"memory": "gru", "context": 3}, {"context": 4, "transition_input": True}])
def test_the_contract_of_agents(options: dict[str, Any], corridor: Path):
    check_agent(ADConfig(**SMALL, histories=str(corridor), **options), Corridor())


def test_every_few_episodes_are_kept_from_a_random_one_on():
    history, firsts = played(), set()
    for draw in range(8):
        kept = thinned(history, rng.key(draw), 4)
        for row in range(6):
            episodes = kept.episode[:, row][kept.mask[:, row] > 0].unique().tolist()
            assert episodes == list(range(episodes[0], 12, 4)) and episodes[0] < 4
            firsts.add(episodes[0])
    assert firsts == {0, 1, 2, 3}
    assert all(torch.equal(*pair) for pair in zip(thinned(history, rng.key(0), 1)[1:-1], history[1:-1], strict=True))


def test_a_window_holds_successive_steps_and_often_the_first():
    history, size = played(), 10
    length = history.mask.sum(0).long()
    starts = []
    for draw in range(100):
        index, mask = windows(history, rng.key(draw), size)
        assert bool((index[1:] - index[:-1] == 1)[mask[1:] > 0].all()) and index.shape == mask.shape
        assert bool((cut(history.mask, index)[mask > 0] == 1).all())
        assert torch.equal(mask.sum(0).long(), length.clamp_max(size))
        starts.append(index[0])
    share = (torch.stack(starts) == 0).float().mean(0)
    torch.testing.assert_close(share, ((size + 1.0) / (length + 1)).clamp_max(1.0), rtol=0, atol=0.16)
    last = torch.stack(starts).amax(0)
    assert bool((last <= (length - size).clamp_min(0)).all()) and bool((last >= length - size - 3).all()), "and the end"


def test_the_loss_is_the_cross_entropy_of_a_naive_loop(corridor: Path):
    """Step by step through each thinned history, as the agent acts; only steps in a window count."""
    family = Corridor()
    agent = build(family, corridor, stride=3, context=200)
    batch = agent.training_batch("train", rng.key(7), 0.0)
    loss, _ = agent._loss(batch.raw, batch.label, batch.mask)
    history = thinned(agent._draw("train", rng.fold(rng.key(7), 0)), rng.fold(rng.key(7), 1), 3)
    steps = history.inputs(family.action_space)
    memory, total, count = agent.begin(8), 0.0, 0
    for t in range(len(history.mask)):
        policy, memory = agent.policy(take(steps, t), memory)
        log_prob = policy.log_prob(history.action[t])
        for row in range(8):
            if history.mask[t, row] > 0:
                total, count = total - float(log_prob[row].detach()), count + 1
    assert float(loss.detach()) == pytest.approx(total / count, rel=1e-5) and count == int(batch.mask.sum())


def test_later_steps_do_not_change_earlier_predictions(corridor: Path):
    agent = build(Corridor(), corridor, stride=2)
    batch = agent.training_batch("train", rng.key(1), 0.0)

    def predicted(raw: Tensor) -> Tensor:
        output, x, _ = agent.net.sequence(raw, None)
        return agent.net.heads(output, x, None)[0].log_prob(batch.label).detach()

    plain, at = predicted(batch.raw), 5
    changed = predicted(torch.cat([batch.raw[:at], batch.raw[at:] + 1.0]))
    torch.testing.assert_close(changed[:at], plain[:at])
    assert not torch.allclose(changed[at:], plain[at:])


@pytest.mark.parametrize("memory", ["transformer", "gru"])
def test_a_full_context_forgets_its_older_half(memory: str):
    """What is predicted is what the network predicts of the steps that are left, as a window of training."""
    family = TwoDoors(20)
    agent = build(family, context=6, memory=memory)
    (rollout,) = run_trial(RandomAgent(family), family, family.sample_tasks(rng.key(0), 3), rng.key(0))
    raw, _ = agent.net.encoder.raw(rollout.step, agent.net.encoder.initial(3))
    memory_now, first = agent.begin(3), 0
    for t in range(20):
        first = t - 3 if t - first == 6 else first
        policy, memory_now = agent.policy(take(rollout.step, t), memory_now)
        output, x, _ = agent.net.sequence(raw[first : t + 1], None)
        expected, _ = agent.net.heads(output[-1], x[-1], None)
        torch.testing.assert_close(policy.log_probs, expected.log_probs)
        assert memory_now.steps.shape[1] == t + 1 - first <= 6
    assert first == 15, "it has forgotten five times"


class FromOne(Corridor):
    """The same corridor with the actions 1 and 2."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.Discrete(2, start=1)

    def step(self, task: Any, state: Any, action: Tensor, key: Tensor) -> Any:
        return super().step(task, state, action - 1, key)


def test_the_numbers_of_actions_do_not_matter(tmp_path: Path):
    """Histories of various lengths end in padding, where there is no action."""
    found = []
    for family in (Corridor(), FromOne()):
        folder = tmp_path / type(family).__name__
        written(RandomAgent(family), family, folder, tasks=6, episodes=6, shard_size=8)
        agent = build(family, folder, stride=1, context=200)
        assert not bool(agent.training_batch("train", agent.key, 0.0).mask.all())
        found.append(agent.learn("train").metrics)
    assert found[0] == found[1]


def test_more_episodes_cannot_be_left_out_than_there_are(corridor: Path):
    build(Corridor(), corridor, stride=12).learn("train")
    with pytest.raises(ValueError, match=r"stride must not exceed the 12 episodes of a history in .*one in 13"):
        build(Corridor(), corridor, stride=13).learn("train")


class Improves(FixedAgent):
    """Tries both doors in turn, and with growing probability takes the one that has paid."""

    def begin(self, num_tasks: int, task: Any = None) -> Any:
        return torch.zeros(num_tasks, dtype=torch.int64), torch.zeros(num_tasks, dtype=torch.int64)

    def act(self, memory: Any, step: Any, key: Any, greedy: bool = False) -> Any:
        time, paid = memory
        paid = torch.where(step.prev_reward > 0.5, step.prev_action, paid)
        knows = rng.uniform(rng.fold(key, 0), 1)[:, 0] < time / 20
        action = torch.where(knows, paid, rng.integers(rng.fold(key, 1), 1, 2)[:, 0])
        return scripted(action, step), (time + 1, paid)


def test_it_learns_in_context_as_its_source_did_but_sooner(tmp_path: Path):
    """The source earns 0.75 in its first twenty episodes and then 1; thinned by ten, AD has learned in three."""
    family = TwoDoors(40)
    written(Improves(), family, tmp_path / "out", tasks=64, trials=4, episodes=40, shard_size=128)
    family = TwoDoors(4)
    agent = build(
        family, tmp_path / "out", meta_batch_size=64, hidden_size=16, num_minibatches=1, lr=0.01, transition_input=True
    )
    losses = [agent.learn("train").metrics["loss/cross_entropy"] for _ in range(150)]
    curve = metarl.evaluate(agent, family, "train", tasks=500, repeats=4)
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
    first, *_, last = curve.mean()
    assert first == pytest.approx(0.5, abs=0.05) and last > 0.9 and agent.learn("train").env_steps == 0


TRAIN = ["--agent", "AD", "--agent.hidden_size=8", "--family", "DarkRoom", "--family.episodes_per_trial=1"]
TRAIN += ["--total_iterations=2", "--eval_every=0"]
TRAIN += [
    "--final_eval_tasks=0",
    "--agent.meta_batch_size=4",
    "--agent.num_minibatches=1",
    "--quiet",
    "--device=cpu",
]


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    family = metarl.make("metarl/DarkRoom-v0")
    return written(RandomAgent(family), family, tmp_path / "rooms", tasks=5, episodes=10)


def test_a_trained_agent_needs_no_histories(rooms: Path, tmp_path: Path):
    run = tmp_path / "run"
    assert main([*TRAIN, f"--agent.histories={rooms}", f"--run_dir={run}"]) == 0
    rooms.rename(tmp_path / "gone")
    agent = metarl.load(run)
    assert metarl.evaluate(agent, split="test", tasks=3).returns.shape == (1, 3, 1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "AD learns from histories: record some with metarl dataset"),
        (["--agent.histories=nowhere"], "The folder 'nowhere' has no histories"),
        (["--agent.histories=ROOMS", "--train_split=all"], "are on tasks of 'train', and the run trains on 'all'"),
        (["--agent.histories=ROOMS", "--family=GridNavi"], "are of DarkRoom(episodes_per_trial=5)"),
        (["--agent.histories=ROOMS", "--agent.stride=0"], "stride must be at least 1"),
    ],
)
def test_what_is_missing_is_said_before_a_run_begins(
    options: list[str], sentence: str, rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    given = [option.replace("ROOMS", str(rooms)) for option in options]
    assert main([*TRAIN, *given, f"--run_dir={tmp_path / 'run'}"]) == 2
    out, err = capsys.readouterr()
    assert not out and sentence in err and err.count("\n") == 1 and not (tmp_path / "run").exists(), err


def test_an_export_is_refused():
    agent = build(TwoDoors(), memory="gru")
    with pytest.raises(ValueError, match="AD cannot be exported"):
        agent.acting_module(agent.begin(1))


def test_q_learning_is_that_of_a_plain_loop():
    """Row by row on a table of its own; an episode's last step, whose next state is not seen, teaches nothing."""
    family = metarl.make("metarl/DarkRoom-v0")
    learner = QLearning(81, 5, lambda obs: (9 * obs[:, 1] + obs[:, 0]).long(), lr=0.5, gamma=0.8)
    (rollout,) = run_trial(learner, family, family.sample_tasks(rng.key(0), 4), rng.key(1), episodes=8)
    memory = learner.begin(4)
    for t in range(len(rollout.mask)):
        _, memory = learner.act(memory, take(rollout.step, t), torch.zeros(4, dtype=torch.int64))
    for row in range(4):
        table = torch.ones(81, 5)
        for t in range(len(rollout.mask) - 1):
            (x, y), (x1, y1) = (rollout.step.obs[at, row].long().tolist() for at in (t, t + 1))
            action, reward = int(rollout.acted.action[t, row]), float(rollout.outcome.reward[t, row])
            if not rollout.outcome.truncated[t, row]:
                target = reward + 0.8 * float(table[9 * y1 + x1].max())
                table[9 * y + x, action] += 0.5 * (target - float(table[9 * y + x, action]))
        torch.testing.assert_close(memory.values[row], table)


def test_q_learning_improves_over_its_episodes():
    family = metarl.make("metarl/DarkRoom-v0")
    learner = metarl.agents.family_extras.baseline("q_learning", family)
    (rollout,) = run_trial(learner, family, family.tasks_of("test"), rng.key(0), episodes=90)
    mean = episode_returns(rollout, 90).mean(0).unflatten(0, (3, 30)).mean(1)
    assert mean[0] < 9.0 < 11.0 < mean[1] < mean[2]
