"""Prioritised level replay: whom it replays, whom it keeps, and what the agent learns from."""

import pytest
import torch
from small_families import Corridor, Length, Target
from torch import Tensor

from metarl.agents.maml.config import MAMLConfig
from metarl.agents.rl2.config import RL2Config
from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.rollout import run_trial
from metarl.core.tree import take
from metarl.envs.grids.wall_maze import WallMaze
from metarl.envs.points.navigation import Navigation2D
from metarl.learning.estimators import gae
from metarl.learning.samplers import scores
from metarl.learning.samplers.buffer import Scored, TaskBuffer, fingerprint
from metarl.learning.samplers.plr import PLR, PLROptions

KEY = rng.key(3)


def make(family=None, **options) -> LearningAgent:
    config = RL2Config(**{"hidden_size": 8, "meta_batch_size": 8} | options)
    return config.build(family or WallMaze(episodes_per_trial=2), 0, torch.device("cpu"))


def filled(count: int = 20, **options) -> PLR:
    """A sampler whose buffer holds tasks with the scores 0, 1, 2 …, each played in a batch of its own."""
    options = {"capacity": count, "min_fill": 1.0} | options
    sampler = PLR(PLROptions(**options), make(), "train")
    tasks = sampler.fresh(KEY, count)
    for row in range(count):
        each = take(tasks, slice(row, row + 1))
        sampler.buffer.add(Scored(each, torch.tensor([float(row)]), torch.zeros(1)), sampler.probabilities())
    return sampler


def formula(sampler: PLR) -> Tensor:
    """P as the paper writes it, with a loop over the tasks."""
    options, found = sampler.options, sampler.buffer.score.tolist()
    ranks = [1 + sum(other > score for other in found) for score in found]
    heights = [1 / rank if options.prioritization == "rank" else max(0.0, s) for rank, s in zip(ranks, found)]
    by_score = torch.tensor([h ** (1 / options.temperature) for h in heights], dtype=torch.float64)
    age = torch.tensor([sampler.buffer.clock - seen for seen in sampler.buffer.seen.tolist()], dtype=torch.float64)
    return (1 - options.staleness) * by_score / by_score.sum() + options.staleness * age / age.sum()


@pytest.mark.parametrize("prioritization", ["rank", "proportional"])
@pytest.mark.parametrize(("temperature", "staleness"), [(1.0, 0.3), (0.3, 0.1), (2.0, 0.0), (1.0, 1.0)])
def test_probabilities_are_the_papers(prioritization: str, temperature: float, staleness: float):
    sampler = filled(prioritization=prioritization, temperature=temperature, staleness=staleness)
    torch.testing.assert_close(sampler.probabilities(), formula(sampler))


def test_proportional_weights_are_0_where_scores_are_negative_and_equal_where_none_is_above_0():
    sampler = filled(10, prioritization="proportional", temperature=1.0, staleness=0.0)
    sampler.buffer.score -= 4.0
    torch.testing.assert_close(sampler.probabilities(), formula(sampler))
    assert not sampler.probabilities()[:5].any() and bool((sampler.probabilities()[5:] > 0).all())
    sampler.buffer.score -= 20.0
    torch.testing.assert_close(sampler.probabilities(), torch.full((10,), 0.1, dtype=torch.float64))


@pytest.mark.parametrize("replace", [True, False])
def test_frequencies_are_the_formula(replace: bool):
    sampler = filled(temperature=1.0, staleness=0.3, replace=replace)
    if replace:
        drawn = sampler.draw(KEY, 20_000)
    else:  # a batch of one place follows the formula; larger ones hold no task twice
        drawn = torch.cat([sampler.draw(rng.fold(KEY, i), 1) for i in range(4000)])
        assert len(sampler.draw(KEY, 20).unique()) == 20 and len(sampler.draw(KEY, 7).unique()) == 7
    frequency = drawn.bincount(minlength=20) / len(drawn)
    error = (formula(sampler) * (1 - formula(sampler)) / len(drawn)).sqrt()
    assert ((frequency - formula(sampler)).abs() < 4 * error).all()


def test_a_batch_is_replayed_as_often_as_is_said():
    sampler = filled(replay=0.8)
    replayed = 0
    for number in range(500):
        sampler.propose(rng.fold(KEY, number), 4)
        replayed += sampler.replayed
    assert 0.75 < replayed / 500 < 0.85


def test_nothing_is_replayed_before_the_buffer_is_filled():
    sampler = PLR(PLROptions(capacity=100, min_fill=0.5, score="regret"), make(), "train")
    for number in range(13):
        proposal = sampler.propose(rng.fold(KEY, number), 4)
        assert not sampler.replayed and proposal.learn
        sampler.buffer.add(Scored(proposal.tasks, torch.zeros(4), torch.zeros(4)), sampler.probabilities())
    assert any(sampler.propose(rng.fold(KEY, 20 + number), 4) and sampler.replayed for number in range(10))


def test_a_full_buffer_replaces_the_least_likely_by_higher_scores():
    sampler = filled(10, temperature=1.0, staleness=0.0)  # the scores 0 … 9, likely in this order
    tasks = sampler.fresh(rng.key(9), 3)
    sampler.buffer.add(Scored(tasks, torch.tensor([4.5, -1.0, 0.5]), torch.zeros(3)), sampler.probabilities())
    # 4.5 takes the place of 0; 0.5 is not above 1; and -1 above nothing.
    assert sorted(sampler.buffer.score.tolist()) == [1.0, 2.0, 3.0, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0]
    assert len(sampler.buffer) == 10
    assert (fingerprint(sampler.buffer.tasks) == sampler.buffer.mark).all()


def test_a_task_of_an_equal_score_replaces_none():
    sampler = filled(10, temperature=1.0, staleness=0.0)
    before = sampler.buffer.mark.clone()
    sampler.buffer.add(Scored(sampler.fresh(rng.key(9), 1), torch.zeros(1), torch.zeros(1)), sampler.probabilities())
    assert torch.equal(sampler.buffer.mark, before)


def test_new_tasks_fill_the_room_that_is_left_the_best_first():
    sampler = filled(10, temperature=1.0, staleness=0.0, capacity=11)
    tasks = sampler.fresh(rng.key(9), 2)
    sampler.buffer.add(Scored(tasks, torch.tensor([-5.0, 20.0]), torch.zeros(2)), sampler.probabilities())
    assert sorted(sampler.buffer.score.tolist()) == [*map(float, range(10)), 20.0]


def test_a_task_that_is_played_again_gets_its_new_score_and_keeps_its_best_return():
    sampler, buffer = filled(), filled().buffer
    again = take(buffer.tasks, torch.tensor([4, 2]))
    assert buffer.best_of(again).tolist() == [0.0, 0.0]
    buffer.add(Scored(again, torch.tensor([7.0, 8.0]), torch.tensor([1.0, 2.0])), sampler.probabilities())
    assert len(buffer) == 20 and buffer.score[[4, 2]].tolist() == [7.0, 8.0]
    assert buffer.age()[[4, 2]].tolist() == [0, 0] and buffer.best_of(again).tolist() == [1.0, 2.0]


def test_a_task_is_scored_by_the_best_return_that_it_ever_had():
    agent = make()
    sampler = PLR(PLROptions(capacity=8), agent, "train")
    tasks, best = sampler.fresh(KEY, 4), torch.full((4,), 9.0)
    sampler.buffer.add(Scored(tasks, torch.zeros(4), best), sampler.probabilities())
    (rollout,) = run_trial(agent, agent.family, tasks, KEY)
    sampler.update_buffer(tasks, rollout)
    assert torch.equal(sampler.buffer.best, best)
    torch.testing.assert_close(sampler.buffer.score, scores.max_mc(agent, rollout, best))


def test_a_task_is_scored_by_the_regret_of_its_mean_return():
    agent = make()
    sampler = PLR(PLROptions(capacity=8, score="regret"), agent, "train")
    tasks = sampler.fresh(KEY, 4)
    (rollout,) = run_trial(agent, agent.family, tasks, KEY)
    reward = rng.uniform(KEY, 4) * (1.0 + rollout.step.prev_done.cumsum(0))  # episodes of unequal returns
    rollout = rollout._replace(outcome=rollout.outcome._replace(reward=reward))
    sampler.update_buffer(tasks, rollout)
    expected = agent.family.oracle(tasks) - (reward * rollout.mask).sum(0) / 2
    torch.testing.assert_close(sampler.buffer.score, expected.sort(descending=True).values, rtol=1e-4, atol=1e-4)


def test_a_task_that_is_twice_in_a_batch_is_once_in_the_buffer():
    buffer = TaskBuffer(10, torch.device("cpu"))
    tasks = take(WallMaze().sample_tasks(KEY, 2), torch.tensor([0, 1, 0]))
    buffer.add(Scored(tasks, torch.tensor([1.0, 5.0, 3.0]), torch.tensor([1.0, 0.0, 4.0])), torch.zeros(0))
    assert sorted(buffer.score.tolist()) == [2.0, 5.0] and sorted(buffer.best.tolist()) == [0.0, 4.0]


def test_zero_has_no_sign_to_the_fingerprint_and_all_else_counts():
    def of(*numbers: float) -> int:
        return int(fingerprint(Target(torch.tensor([numbers]))))

    assert of(0.0, 1.0) == of(-0.0, 1.0)
    assert len({of(0.0, 1.0), of(1.0, 0.0), of(0.0, -1.0), of(0.0, 1.0000001), of(0.0, 0.0)}) == 5


def test_robust_replay_learns_from_no_new_task():
    sampler = filled(robust=True, replay=0.5)
    seen = {(sampler.propose(rng.fold(KEY, number), 4).learn, sampler.replayed) for number in range(40)}
    assert seen == {(True, True), (False, False)}


def test_regret_is_the_optimum_less_the_return():
    agent = make()
    tasks = agent.family.sample_tasks(KEY, 5)
    (rollout,) = run_trial(agent, agent.family, tasks, KEY)
    mean = scores.outcome(agent, rollout, 5).mean
    total = (rollout.outcome.reward * rollout.mask).sum(0) / 2
    torch.testing.assert_close(mean, total)
    torch.testing.assert_close(scores.regret(agent, rollout, mean), agent.family.oracle(tasks) - total)


@pytest.mark.parametrize("critic", ["history", "task"])
def test_scores_by_values_are_the_papers(critic: str):
    agent = make(Corridor(episodes_per_trial=2), critic=critic)
    agent.return_mean.fill_(3.0)
    agent.return_std.fill_(0.7)
    (rollout,) = run_trial(agent, agent.family, Length(torch.tensor([1, 2, 4, 4])), KEY)
    value, mask = agent.values(rollout), rollout.mask
    assert value.shape == mask.shape and value.std() > 0 and not mask.all()
    best, found = torch.tensor([0.1, 0.2, 0.3, 0.4]), []
    for row in range(4):
        episode, sums = 0, 0.0
        for t in range(int(mask[:, row].sum())):
            sums += float(best[row]) * (2 - episode) - float(value[t, row])
            episode += bool(rollout.outcome.terminated[t, row] | rollout.outcome.truncated[t, row])
        found.append(sums / float(mask[:, row].sum()))
    torch.testing.assert_close(scores.max_mc(agent, rollout, best), torch.tensor(found), rtol=1e-4, atol=1e-5)
    signs = set()
    for row in range(4):
        alive = int(mask[:, row].sum())
        reward, own = rollout.outcome.reward[:alive, [row]], value[:alive, [row]]
        ends = torch.zeros_like(reward).index_fill_(0, torch.tensor([alive - 1]), 1.0)
        advantage = gae(reward, own, ends, torch.zeros(1), 0.9, 0.8)
        signs |= {bool(positive) for positive in (advantage > 0).flatten()}
        expected = advantage.clamp_min(0).mean()
        score = scores.positive_value_loss(agent, rollout, 4, 0.9, 0.8)[row]
        torch.testing.assert_close(score, expected, rtol=1e-4, atol=1e-6)
    assert signs == {True, False}


def test_scores_of_a_task_that_is_played_side_by_side_are_those_of_all_its_rows():
    """MAML plays several episodes of a task at once; the rows of a task follow each other."""
    family = Navigation2D()
    config = MAMLConfig(meta_batch_size=3, fast_batch_size=4, hidden_sizes=(8,), baseline="network")
    agent = config.build(family, 0, torch.device("cpu"))
    tasks = family.sample_tasks(KEY, 3)
    rollout = run_trial(agent, family, tasks, KEY)[-1]
    value, returns = agent.values(rollout), (rollout.outcome.reward * rollout.mask).sum(0)
    played = scores.outcome(agent, rollout, 3)
    best, errors = torch.tensor([-1.0, 5.0, 20.0]), []
    for number in range(3):
        rows = slice(4 * number, 4 * number + 4)
        assert float(played.mean[number]) == pytest.approx(float(returns[rows].mean()), rel=1e-5)
        assert float(played.best[number]) == pytest.approx(float(returns[rows].max()), rel=1e-5)
        each = ((best[number] - value[:, rows]) * rollout.mask[:, rows]).sum(0) / rollout.mask[:, rows].sum(0)
        errors.append(each.mean())
    assert bool((played.best > played.mean + 1e-3).all())
    torch.testing.assert_close(scores.max_mc(agent, rollout, best), torch.stack(errors), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores.regret(agent, rollout, played.mean), family.oracle(tasks) - played.mean)


@pytest.mark.parametrize("baseline", ["network", "linear"])
def test_a_gradient_agent_has_values_with_a_learned_baseline(baseline: str):
    family = Navigation2D()
    config = MAMLConfig(meta_batch_size=3, fast_batch_size=2, hidden_sizes=(8,), baseline=baseline)
    agent = config.build(family, 0, torch.device("cpu"))
    if baseline == "linear":
        with pytest.raises(ValueError, match=r"The score max_mc needs a critic, which .* lacks: choose regret"):
            PLR(PLROptions(), agent, "train")
        return
    sampler = PLR(PLROptions(capacity=6), agent, "train")
    proposal = sampler.propose(KEY, 3)
    sampler.score(proposal, run_trial(agent, family, proposal.tasks, KEY))
    assert len(sampler.buffer) == 3 and sampler.buffer.score.isfinite().all()


def test_regret_needs_a_known_optimum():
    with pytest.raises(ValueError, match=r"needs the known optimum of a task, and Corridor has none"):
        PLR(PLROptions(score="regret"), make(Corridor()), "train")


def test_the_state_is_whole():
    sampler, again = filled(), filled(3, capacity=20, min_fill=0.1)
    again.load_state_dict({name: value.clone() for name, value in sampler.state_dict().items()})
    torch.testing.assert_close(again.probabilities(), sampler.probabilities(), rtol=0, atol=0)
    a, b = sampler.propose(KEY, 6), again.propose(KEY, 6)
    assert a.learn == b.learn and all(torch.equal(x, y) for x, y in zip(a.tasks, b.tasks))
    assert (again.buffer.mark == sampler.buffer.mark).all()


def test_a_family_with_few_tasks_is_replayed_although_it_does_not_fill_the_buffer():
    agent = make(Corridor())  # whose training tasks are three
    sampler = PLR(PLROptions(robust=True), agent, "train")
    proposals = []
    for number in range(12):
        proposals.append(sampler.propose(rng.fold(KEY, number), 8))
        sampler.score(proposals[-1], run_trial(agent, agent.family, proposals[-1].tasks, KEY))
    assert len(sampler.buffer) == 3 and any(proposal.learn for proposal in proposals)


def test_a_finite_split_bounds_the_buffer():
    from metarl.envs.grids.grid_navi import GridNavi

    agent = make(GridNavi())
    sampler = PLR(PLROptions(score="regret"), agent, "train")
    assert sampler.buffer.capacity == agent.family.num_tasks("train")
    proposal = sampler.propose(KEY, 8)
    sampler.score(proposal, run_trial(agent, agent.family, proposal.tasks, KEY))
    assert len(sampler.buffer) <= 8
    assert len(sampler.draw(KEY, 30)) == 30  # more places than tasks
