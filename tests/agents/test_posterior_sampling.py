"""PSRL, OPSRL and sampling at every step: the posterior, the plan, and the published returns."""

import numpy as np
import pytest
import scipy.stats
import torch
from test_envs import assert_mean

from metarl.agents.reference.grids import PosteriorSampling
from metarl.agents.reference.mdps import OPSRL, PSRL, Experience, TabularMDPOracle
from metarl.core import rng
from metarl.core.batch_env import BatchEnv
from metarl.core.rollout import collect
from metarl.core.tree import take
from metarl.envs.grids.dark_room import DarkRoom
from metarl.envs.grids.grid_navi import GridNavi
from metarl.envs.mdp import TabularMDP
from metarl.evaluation import evaluator
from metarl.evaluation.evaluator import evaluate


def experience(agent: PSRL, moves: list[int], tries: list[float], total: list[float], rows: int) -> Experience:
    """The same hand-made experience in every row."""
    return agent.begin(rows)._replace(
        moves=torch.tensor(moves).expand(rows, -1),
        tries=torch.tensor(tries).expand(rows, -1),
        total=torch.tensor(total).expand(rows, -1),
    )


@pytest.mark.parametrize("prior_mean", [0.0, 1.0])
def test_draws_come_from_the_posterior(prior_mean):
    """2 states, 2 actions; (0, 1) led to 0 once and to 1 three times, one transition was not seen."""
    agent, n = PSRL(2, 2, prior_mean=prior_mean), 20_000
    moves = [2 + 1, 2 + 1, 8, 2, 2 + 1, 6]
    seen = experience(agent, moves, [0.0, 4.0, 0.0, 2.0], [0.0, 6.0, 0.0, -1.0], n)
    transition, mean = agent._draw(seen, rng.fold(rng.key(0), torch.arange(n)))
    torch.testing.assert_close(transition.sum(-1), torch.ones(n, 2, 2))
    for (s, a), (first, second) in {(0, 0): (1, 1), (0, 1): (2, 4), (1, 0): (1, 1), (1, 1): (2, 1)}.items():
        assert scipy.stats.kstest(transition[:, s, a, 0].numpy(), scipy.stats.beta(first, second).cdf).pvalue > 0.001
    for (s, a), (tries, total) in {(0, 0): (0, 0.0), (0, 1): (4, 6.0), (1, 1): (2, -1.0)}.items():
        posterior = scipy.stats.norm((prior_mean + total) / (1 + tries), (1 + tries) ** -0.5)
        assert scipy.stats.kstest(mean[:, s, a].numpy(), posterior.cdf).pvalue > 0.001


def test_it_remembers_what_it_saw():
    family, rows = TabularMDP(num_states=4, num_actions=3, horizon=5, episodes_per_trial=4), 7
    task = family.sample_tasks(rng.key(0), rows)
    agent = PSRL(4, 3, 5)
    rollout, memory = collect(agent, agent.begin(rows), BatchEnv(family, task, rng.key(1)), rng.key(2))
    state, action, reward = rollout.step.obs.argmax(-1), rollout.acted.action, rollout.outcome.reward
    later = rollout.outcome.final_obs.argmax(-1)
    assert memory.moves.shape == (rows, 20)
    for b in range(rows):
        # The first entry is what came before the trial: nothing. The trial's last step is not reported to it at all.
        expected = [48]
        for t in range(19):
            pair = int(state[t, b]) * 3 + int(action[t, b])
            expected.append(48 if t % 5 == 4 else pair * 4 + int(later[t, b]))
        assert memory.moves[b].tolist() == expected
        pairs = state[:19, b] * 3 + action[:19, b]
        assert memory.tries[b].tolist() == pairs.bincount(minlength=12).tolist()
        total = torch.zeros(12).index_add(0, pairs, reward[:19, b])
        torch.testing.assert_close(memory.total[b], total)


def test_the_plan_for_the_true_tables_is_the_oracles(monkeypatch):
    monkeypatch.setattr(evaluator, "PROBED", 50)  # it knows the tables of all tasks at once
    family = TabularMDP(episodes_per_trial=2)
    task = family.sample_tasks(rng.key(0), 50)

    class Told(PSRL):
        def _draw(self, seen, key):
            return task.transition, task.reward_mean

    agents = (Told(num_samples=2), TabularMDPOracle())
    told, oracle = (evaluate(agent, family, tasks=task, repeats=1).returns for agent in agents)
    np.testing.assert_array_equal(told, oracle)


def test_one_plan_per_episode():
    """Within an episode the plan stays; with each new one it is drawn again."""
    family = TabularMDP(num_states=3, num_actions=4, horizon=4, episodes_per_trial=3)
    agent, env = PSRL(3, 4, 4), BatchEnv(family, family.sample_tasks(rng.key(0), 20), rng.key(1))
    step, memory, plans = env.reset(), agent.begin(20), []
    for t in range(12):
        acted, memory = agent.act(memory, step, rng.fold(rng.fold(rng.key(2), torch.arange(20)), t))
        plans.append(memory.plan)
        assert (memory.t == t % 4 + 1).all()
        step = env.step(acted.action)[1]
    for t in range(1, 12):
        assert torch.equal(plans[t], plans[t - 1]) == (t % 4 != 0)


def test_psrl_return():
    """RL² (Duan et al. 2016) reports 138.1 for 10 episodes; the first episode knows nothing and is worth 10."""
    curve = evaluate(PSRL(), TabularMDP(), tasks=2500)
    assert_mean(torch.as_tensor(curve.totals).flatten(), 138.1, within=2.2)
    assert_mean(torch.as_tensor(curve.returns[0, :, 0]), 10.0, within=0.5)
    assert (np.diff(curve.mean()) > 0).all(), "it learns in every episode"


def test_opsrl_is_better_by_being_optimistic():
    family = TabularMDP()
    plain, optimistic = (evaluate(agent, family, tasks=400).totals.ravel() for agent in (PSRL(), OPSRL(num_samples=4)))
    gain = optimistic - plain  # on the same tasks with the same noise
    assert gain.mean() > 2 * gain.std() / len(gain) ** 0.5
    assert OPSRL().num_samples == 10


def test_a_row_acts_alone_as_beside_others():
    family = TabularMDP(num_states=4, num_actions=3, horizon=5, episodes_per_trial=4)
    for agent in (PSRL(4, 3, 5), OPSRL(4, 3, 5, num_samples=3)):
        few, many = (evaluate(agent, family, tasks=n).returns[0] for n in (3, 12))
        np.testing.assert_array_equal(few, many[:3])


GRIDS = [GridNavi(), DarkRoom(3)]


@pytest.mark.parametrize("family", GRIDS, ids=repr)
def test_on_grids_actions_are_as_frequent_as_they_are_best_in_the_posterior(family):
    rows, goals = 4_000, family.tasks_of("all").goal
    step = BatchEnv(family, family.sample_tasks(rng.key(0), rows, "all"), rng.key(1)).reset()
    agent = PosteriorSampling(family)
    acted, _ = agent.act(agent.begin(rows), step, rng.fold(rng.key(2), torch.arange(rows)))
    share = acted.action.bincount(minlength=5) / rows
    expected = torch.zeros(5)
    for x, y in (goals - step.obs[0].long()).tolist():
        ways = [move for move, leads in enumerate((x == y == 0, y > 0, x > 0, y < 0, x < 0)) if leads]
        expected[ways] += 1.0 / (len(ways) * len(goals))
    torch.testing.assert_close(share, expected, rtol=0, atol=0.03)
    greedy, _ = agent.act(agent.begin(rows), step, rng.fold(rng.key(2), torch.arange(rows)), greedy=True)
    assert (expected[greedy.action] >= expected.max() - 1e-6).all()


def test_with_the_belief_of_the_episode_s_start_the_first_episode_earns_what_a_markov_chain_does():
    """Without a context the player is a fixed policy, the mean over all goals of their optimal ones."""
    family = GridNavi(1)
    goals, cells = family.tasks_of("all").goal, torch.cartesian_prod(torch.arange(5), torch.arange(5))
    best = torch.stack([
        family.optimal_actions(family.tasks_of("all"), cell.float().expand(len(goals), 2)).float() for cell in cells
    ])  # fmt: skip
    policy = (best / best.sum(-1, keepdim=True)).mean(1)  # (cells, actions)
    moves = torch.tensor([(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)])
    after = (cells[:, None] + moves).clamp(0, 4)
    chain = torch.zeros(25, 25).scatter_add_(1, after[..., 0] * 5 + after[..., 1], policy)
    at, visits = torch.nn.functional.one_hot(torch.tensor(0), 25).float(), torch.zeros(25)
    for _ in range(family.horizon):
        at = at @ chain
        visits += at
    on_goal = visits[goals[:, 0] * 5 + goals[:, 1]].mean()
    curve = evaluate(PosteriorSampling(family, "belief"), family, "all", tasks=21, repeats=500)
    assert curve.mean()[0] == pytest.approx(float(on_goal - 0.1 * (family.horizon - on_goal)), abs=0.1)


def test_the_belief_of_the_episode_s_start_ignores_what_the_episode_shows():
    family, rows = DarkRoom(2), 300
    env = BatchEnv(family, family.sample_tasks(rng.key(0), rows, "all"), rng.key(1))
    agents = [PosteriorSampling(family, kept) for kept in ("belief", "nothing")]
    step, memories = env.reset(), [agent.begin(rows) for agent in agents]
    for t in range(2 * family.horizon):
        at = rng.fold(rng.fold(rng.key(2), t), torch.arange(rows))
        (acted, memories[0]), (_, memories[1]) = (a.act(m, step, at) for a, m in zip(agents, memories, strict=True))
        same = torch.equal(memories[0].probs, memories[1].probs)
        assert same == (t in (0, family.horizon)), t
        _, step = env.step(acted.action)


@pytest.mark.parametrize("family", GRIDS, ids=repr)
def test_who_keeps_a_goal_walks_straight_to_it_until_it_is_ruled_out(family):
    rows = 200
    env = BatchEnv(family, family.sample_tasks(rng.key(0), rows, "all"), rng.key(1))
    agent, step = PosteriorSampling(family, "task"), env.reset()
    memory = agent.begin(rows)
    for t in range(family.horizon):
        before = memory
        acted, memory = agent.act(before, step, rng.fold(rng.fold(rng.key(2), t), torch.arange(rows)))
        probs = agent.inference.probs(memory.belief)
        still = probs.gather(1, before.number[:, None])[:, 0] > 0
        assert t == 0 or torch.equal(memory.number[still], before.number[still])
        assert (probs.gather(1, memory.number[:, None]) > 0).all()
        task = take(family.tasks_of("all"), memory.number)
        assert torch.equal(acted.action, family.optimal_action(task, step.obs))
        _, step = env.step(acted.action)
