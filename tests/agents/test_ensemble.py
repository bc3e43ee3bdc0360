"""Ensembles: the mixture, weights that follow Bayes' rule or Hedge, and disagreement."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small_families import Corridor
from torch import Tensor

import metarl
from metarl.agents import RL2Config, VariBADConfig
from metarl.agents.ensemble import Ensemble
from metarl.agents.ensemble.agent import RESIDUAL_TASKS
from metarl.agents.ensemble.weights import (
    MOST_RATIO,
    by_hedge,
    by_likelihood,
    disagreement,
    hedge_rate,
    normal_log_prob,
    sampled_disagreement,
)
from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.batch_env import Step, make_env
from metarl.core.distributions import Categorical, DiagonalGaussian
from metarl.core.rollout import Acted, TrialProtocol, run_trial
from metarl.core.tree import take
from metarl.envs.bandits.bernoulli import BernoulliBandit

FAMILY = BernoulliBandit(num_arms=2, episodes_per_trial=6)


class Sure(LearningAgent):
    """A member that believes in one task, ``(p_0, p_1)``, and pulls its better arm nine times out of ten."""

    protocol = TrialProtocol()
    device = torch.device("cpu")

    def __init__(self, probs: tuple[float, float], family: Any = FAMILY) -> None:
        self.probs, self.family = torch.tensor(probs), family
        self.policy = torch.where(torch.arange(2) == self.probs.argmax(), 0.9, 0.1)

    def begin(self, num_tasks: int, task: Any = None) -> Tensor:
        return torch.zeros(num_tasks)

    def act(self, memory: Any, step: Step, key: Tensor, greedy: bool = False) -> tuple[Acted, Any]:
        raise_memory = memory + 1
        nothing = torch.zeros(len(memory))
        return Acted(nothing.long(), nothing, nothing), raise_memory

    def adapt(self, memory: Any, rollout: Any) -> Any:
        return memory

    def action_distribution(self, memory: Any, step: Step) -> Categorical:
        return Categorical.from_logits(self.policy.log().expand(len(memory), 2))

    def reward_log_prob(self, memory: Any, obs: Tensor, step: Step) -> Tensor:
        p = self.probs[step.prev_action]
        return torch.where(step.prev_reward > 0, p, 1 - p).log()


def played(ensemble: Ensemble, rows: int = 200, seed: int = 0) -> tuple[Any, list[Any]]:
    """A trial, and the memory before each action but the first."""
    task, memories = FAMILY.sample_tasks(rng.key(seed), rows), []
    (rollout,) = run_trial(ensemble, FAMILY, task, rng.key(seed))
    memory = ensemble.begin(rows)
    for t in range(len(rollout.mask)):
        step = take(rollout.step, t)
        memories.append(ensemble._weighed(memory, step))
        memory = ensemble.act(memory, step, rng.fold(rng.key(99), torch.arange(rows)))[1]
    return rollout, memories


def test_weights_equal_bayes_on_two_tasks():
    """Two members, each sure of one of two tasks: the weights are the posterior over the tasks."""
    tasks = (0.8, 0.3), (0.4, 0.9)
    rollout, memories = played(Ensemble([Sure(each) for each in tasks], "likelihood"))
    for row in (0, 7, 100):
        likelihood = [1.0, 1.0]
        for t in range(6):
            posterior = [each / sum(likelihood) for each in likelihood]
            assert memories[t].log_weights[row].exp().tolist() == pytest.approx(posterior, rel=1e-4)
            arm, paid = int(rollout.acted.action[t, row]), float(rollout.outcome.reward[t, row]) > 0
            likelihood = [
                each * (task[arm] if paid else 1 - task[arm]) for each, task in zip(likelihood, tasks, strict=True)
            ]


def test_the_policy_is_the_convex_combination():
    ensemble = Ensemble([Sure((0.8, 0.3)), Sure((0.4, 0.9)), Sure((0.2, 0.9))])
    memory = ensemble.begin(40_000)
    nothing = torch.zeros(40_000)
    step = Step(torch.zeros(40_000, 1), nothing.long(), nothing, nothing)
    acted, after = ensemble.act(memory, step, rng.fold(rng.key(0), torch.arange(40_000)))
    expected = (0.9 + 0.1 + 0.1) / 3
    assert float((acted.action == 0).float().mean()) == pytest.approx(expected, abs=0.01)
    torch.testing.assert_close(acted.log_prob.exp(), torch.where(acted.action == 0, expected, 1 - expected))
    greedy, _ = ensemble.act(memory, step, rng.fold(rng.key(0), torch.arange(40_000)), greedy=True)
    assert bool((greedy.action == 1).all())
    assert all(torch.equal(each, torch.ones(40_000)) for each in after.members), "every member sees every step"


def test_an_episode_is_one_member_s():
    """In a chain of equal actions a mixture of episodes keeps to one member's, a mixture of steps does not."""
    family = metarl.make("metarl/GridNavi-v0", episodes_per_trial=2)
    members = [_grid_member(family, action) for action in (1, 2)]
    task = family.sample_tasks(rng.key(0), 64)
    for mix, alone in (("episode", True), ("step", False)):
        (rollout,) = run_trial(Ensemble(members, mix=mix), family, task, rng.key(0))
        first = rollout.acted.action[:15]
        assert bool((first == first[0]).all()) is alone
        other = rollout.acted.action[15:30]
        assert not bool((other == first[0]).all()), "the next episode is drawn anew"


def _grid_member(family: Any, action: int) -> Sure:
    member = Sure((0.5, 0.5), family)
    member.policy = torch.nn.functional.one_hot(torch.tensor(action), 5).float()
    member.action_distribution = lambda memory, step: Categorical.from_logits(  # type: ignore[method-assign]
        (member.policy + 1e-9).log().expand(len(memory), 5)
    )
    return member


def test_hedge_is_its_formula_and_finds_the_better_member():
    log_weights = torch.tensor([[0.5, 0.5]]).log()
    after = by_hedge(log_weights, torch.tensor([2.0]), torch.tensor([[math.log(1.5), math.log(0.5)]]), 0.3)
    expected = torch.tensor([0.5 * math.exp(0.3 * 2 * 1.5), 0.5 * math.exp(0.3 * 2 * 0.5)])
    torch.testing.assert_close(after.exp()[0], expected / expected.sum())
    assert hedge_rate(2, 100) == pytest.approx(math.sqrt(8 * math.log(2) / 100))
    bounded = by_hedge(log_weights, torch.tensor([1.0]), torch.tensor([[50.0, 0.0]]), 0.1)
    expected = torch.tensor([[0.1 * MOST_RATIO, 0.1]]).log_softmax(-1)
    torch.testing.assert_close(bounded, expected, msg="the ratio is bounded")

    for mix in ("step", "episode"):
        good, bad = Sure((0.9, 0.1)), Sure((0.1, 0.9))
        ensemble = Ensemble([good, bad], "hedge", mix, rate=1.0)
        family = BernoulliBandit(num_arms=2, episodes_per_trial=40)
        task = family.sample_tasks(rng.key(0), 300)._replace(probs=torch.tensor([[0.9, 0.1]]).expand(300, 2))
        (rollout,) = run_trial(ensemble, family, task, rng.key(1))
        early, late = ((rollout.acted.action[part] == 0).float().mean() for part in (slice(0, 1), slice(-5, None)))
        assert float(early) < 0.6 and float(late) > 0.8, mix


class Paying(Corridor):
    """A corridor whose returns have a known range."""

    def oracle(self, task: Any) -> Tensor:
        return torch.full(task.length.shape, 9.0)

    def random_return(self, task: Any) -> Tensor:
        return torch.full(task.length.shape, 5.0)


class Steady(Sure):
    """A member that goes on with the same probability at every step."""

    def __init__(self, goes_on: float, family: Any) -> None:
        super().__init__((0.5, 0.5), family)
        self.policy = torch.tensor([1.0 - goes_on, goes_on])


@pytest.mark.parametrize("mix", ["step", "episode"])
def test_hedge_in_a_trial_is_that_of_a_plain_loop(mix: str):
    """Weights after episodes of several steps and of unequal lengths, each of which counts once."""
    family, goes_on, rate, unit, rows = Paying(episodes_per_trial=5), (0.9, 0.2, 0.4), 0.7, 4.0, 24
    ensemble = Ensemble([Steady(p, family) for p in goes_on], "hedge", mix, rate=rate)
    env = make_env(family, family.sample_tasks(rng.key(0), rows), rng.key(1))
    step, memory, keys = env.reset(), ensemble.begin(rows), rng.fold(rng.key(2), torch.arange(rows))
    of_action = torch.tensor([[1.0 - p for p in goes_on], goes_on]).log()
    log_weights, own = torch.full((rows, 3), 1 / 3).log(), torch.zeros(rows, 3)
    mixed, gain = torch.zeros(rows), torch.zeros(rows)
    ends = 0
    for time in range(env.max_steps):
        gain = gain + step.prev_reward / unit
        for row in step.prev_done.nonzero()[:, 0].tolist():
            of_episode = mixed[row] if mix == "step" else (log_weights[row] + own[row]).logsumexp(0)
            ratio = (own[row] - of_episode).exp().clamp_max(MOST_RATIO)
            log_weights[row] = (log_weights[row] + rate * gain[row] * ratio).log_softmax(0)
            own[row], mixed[row], gain[row], ends = 0.0, 0.0, 0.0, ends + 1
        before = memory.playing
        acted, memory = ensemble.act(memory, step, rng.fold(keys, time))
        torch.testing.assert_close(memory.log_weights, log_weights, rtol=1e-4, atol=1e-4)
        of_members = of_action[acted.action]
        mixture = (log_weights + of_members).logsumexp(1)
        if mix == "episode":
            goes = (step.prev_done == 0) & (time > 0)
            assert torch.equal(memory.playing[goes], before[goes]), "a member plays to the end of its episode"
            chosen = of_members.gather(1, memory.playing[:, None])[:, 0]
        else:
            chosen = mixture
        torch.testing.assert_close(acted.log_prob, chosen)
        own, mixed = own + of_members, mixed + mixture
        _, step = env.step(acted.action)
    assert ends > 4 * rows and memory.log_weights.exp().std() > 0.05


class Estimating(Steady):
    """A member whose critic's values follow the observation; its returns are discounted by one half."""

    config = RL2Config(gamma=0.5)
    reward_log_prob = None  # type: ignore[assignment]

    def act(self, memory: Any, step: Step, key: Tensor, greedy: bool = False) -> tuple[Acted, Any]:
        nothing = torch.zeros(len(memory))
        return Acted(rng.choice(key, self.policy.expand(len(key), 2)), nothing, 1.0 + step.obs[:, 0]), memory + 1


def test_the_size_of_a_critic_s_errors_is_that_of_a_plain_loop():
    """Where trials have unequal lengths: nothing counts after a trial's end, and no value follows its last step."""
    family = Paying()
    member = Estimating(0.6, family)
    (size, _) = Ensemble([member, Estimating(0.2, family)], "likelihood").residual_sizes
    (rollout,) = run_trial(member, family, family.sample_tasks(rng.key(0), RESIDUAL_TASKS), rng.key(0))
    errors = []
    for row in range(RESIDUAL_TASKS):
        value, reward = rollout.acted.value[:, row].tolist(), rollout.outcome.reward[:, row].tolist()
        steps = int(rollout.mask[:, row].sum())
        following = [*value[1:steps], 0.0]
        errors += [reward[t] + 0.5 * following[t] - value[t] for t in range(steps)]
    assert len(errors) < rollout.mask.numel()
    assert size == pytest.approx(math.sqrt(sum(error**2 for error in errors) / len(errors)), rel=1e-5)


def test_a_critic_is_judged_by_its_values_before_and_after_the_reward():
    family = Paying()
    ensemble = Ensemble([Estimating(0.6, family), Estimating(0.2, family)], "likelihood")
    ensemble.residual_sizes = [0.3, 2.0]
    env = make_env(family, family.sample_tasks(rng.key(0), 20), rng.key(1))
    first, memory, keys = env.reset(), ensemble.begin(20), rng.fold(rng.key(2), torch.arange(20))
    acted, memory = ensemble.act(memory, first, keys)
    _, second = env.step(acted.action)
    _, memory = ensemble.act(memory, second, keys)
    error = second.prev_reward + 0.5 * (1.0 + second.obs[:, 0]) - (1.0 + first.obs[:, 0])
    sizes = torch.tensor(ensemble.residual_sizes)
    expected = torch.distributions.Normal(0.0, sizes).log_prob(error[:, None]).log_softmax(1)
    torch.testing.assert_close(memory.log_weights, expected)


def test_the_member_that_plays_and_its_action_are_drawn_by_keys_of_their_own():
    ensemble, rows = Ensemble([Steady(0.5, FAMILY), Steady(0.5, FAMILY)], mix="episode"), 2000
    env = make_env(FAMILY, FAMILY.sample_tasks(rng.key(0), rows), rng.key(0))
    acted, memory = ensemble.act(ensemble.begin(rows), env.reset(), rng.fold(rng.key(0), torch.arange(rows)))
    assert abs(float((acted.action == memory.playing).float().mean()) - 0.5) < 0.06


def test_a_greedy_action_of_a_box_is_the_mode_that_the_mixture_finds_most_likely():
    """Two members that nearly agree outvote one that is far from both."""
    means = (0.7, 0.0, 0.05)
    ensemble = Ensemble([Drawn(mean) for mean in means])
    acted, _ = ensemble.act(ensemble.begin(50), at_start(50), rng.fold(rng.key(0), torch.arange(50)), greedy=True)
    own = ensemble.units.to_own(acted.action)
    assert bool(((own - 0.0).abs() < 1e-6).all() | ((own - 0.05).abs() < 1e-6).all())


def test_uniform_weights_stay():
    _, memories = played(Ensemble([Sure((0.8, 0.3)), Sure((0.4, 0.9))]), 5)
    assert all(torch.allclose(each.log_weights.exp(), torch.tensor(0.5)) for each in memories)


def test_disagreement_is_the_jensen_shannon_divergence():
    p = torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]]])
    weights = torch.tensor([0.25, 0.75]).expand(3, 2)
    found = disagreement(p.log(), weights.log())
    mixture = (weights[..., None] * p).sum(1)
    naive = [
        sum(
            float(weights[row, m]) * float(p[row, m, a]) * math.log(float(p[row, m, a]) / float(mixture[row, a]))
            for m in range(2) for a in range(2) if float(p[row, m, a]) > 0
        )
        for row in range(3)
    ]  # fmt: skip
    assert found.tolist() == pytest.approx(naive, abs=1e-6)
    assert found[1] == pytest.approx(0.0, abs=1e-7)
    assert float(found[2]) == pytest.approx(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)), abs=1e-5)


def test_bayes_rule():
    found = by_likelihood(torch.tensor([[0.2, 0.8]]).log(), torch.tensor([[0.9, 0.3]]).log())
    assert found.exp()[0].tolist() == pytest.approx([0.18 / 0.42, 0.24 / 0.42])


def test_it_is_evaluated_like_any_agent():
    agents = [RL2Config(meta_batch_size=8, hidden_size=8).build(FAMILY, seed, torch.device("cpu")) for seed in (0, 1)]
    curve = metarl.evaluate(Ensemble(agents, "hedge"), FAMILY, "test", 50, repeats=2, step_curve=False)
    assert curve.returns.shape == (1, 50, 6) and curve.agent == "Ensemble"


def test_varibad_says_how_likely_a_reward_is():
    """The same numbers as its ELBO decodes, for the mean of the belief."""
    for family, options in (
        (metarl.make("metarl/GridNavi-v0"), {"reward_likelihood": "bernoulli", "reward_head": "per_observation"}),
        (metarl.make("metarl/SparsePointRobot-v0"), {}),
    ):
        config = VariBADConfig(meta_batch_size=8, gru_size=8, buffer_size=64, vae_batch=4, **options)
        agent = config.build(family, 0, torch.device("cpu"))
        (rollout,) = run_trial(agent, family, family.sample_tasks(rng.key(0), 6), rng.key(0))
        memory, evidence = agent.begin(6), agent.evidence(rollout)
        for t in range(1, 12):
            step, before = take(rollout.step, t), take(rollout.step, t - 1)
            memory = agent._see(memory, before)[1]
            found = agent.reward_log_prob(memory, before.obs, step)
            m = agent.net.belief.gaussian(memory.belief).mean[None]
            one = type(evidence)(*(part[t - 1 : t] for part in evidence))
            expected = agent.net.decoder._reward_log_prob(agent.net.decoder.predict_reward(m, one), one.reward)[0, 0]
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_what_was_observed_in_another_episode_explains_no_reward():
    """A step after the end of an episode shows where the next one begins: the weights do not depend on it."""
    family = metarl.make("metarl/GridNavi-v0")
    config = VariBADConfig(meta_batch_size=8, gru_size=8, reward_likelihood="bernoulli", reward_head="per_observation")
    agents = [config.build(family, seed, torch.device("cpu")) for seed in (0, 1)]
    ensemble = Ensemble(agents, "likelihood")
    (rollout,) = run_trial(ensemble, family, family.sample_tasks(rng.key(0), 6), rng.key(0))
    memory = ensemble.begin(6)
    for t in range(family.horizon + 1):
        step = take(rollout.step, t)
        elsewhere = ensemble._weighed(memory, step._replace(obs=4.0 - step.obs)).log_weights
        weights = ensemble._weighed(memory, step).log_weights
        assert torch.equal(elsewhere, weights) == (t in (0, family.horizon))
        memory = ensemble.act(memory, step, rng.fold(rng.key(9), torch.arange(6)))[1]


@pytest.mark.parametrize(
    ("members", "options", "sentence"),
    [
        ([Sure((0.5, 0.5))], {}, "two members"),
        ([Sure((0.5, 0.5))] * 2, {"weights": "bayes"}, "Unknown kind of weights"),
        ([Sure((0.5, 0.5))] * 2, {"mix": "trial"}, "Unknown kind of mix"),
        ([Sure((0.5, 0.5)), Sure((0.5, 0.5), BernoulliBandit())], {}, "different families"),
    ],
    ids=range(4),
)
def test_what_cannot_be_combined(members: list[Any], options: dict[str, str], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        Ensemble(members, **options)


def test_members_must_predict_rewards_for_bayes_rule():
    agents = [RL2Config(meta_batch_size=8, hidden_size=8).build(FAMILY, seed, torch.device("cpu")) for seed in (0, 1)]
    with pytest.raises(ValueError, match="predict rewards"):
        Ensemble(agents, "likelihood")


PLANE = metarl.make("metarl/Navigation2D-v0")


class Drawn(Sure):
    """A member that moves by a normal distribution in the units of networks, and predicts a return of `value`."""

    config = RL2Config(gamma=0.5)

    def __init__(self, mean: float, value: float = 0.0) -> None:
        super().__init__((0.5, 0.5), PLANE)
        self.mean, self.value = mean, value

    reward_log_prob = None  # type: ignore[assignment]

    def act(self, memory: Any, step: Step, key: Tensor, greedy: bool = False) -> tuple[Acted, Any]:
        nothing = torch.zeros(len(memory))
        return Acted(torch.zeros(len(memory), 2), nothing, nothing + self.value), memory + 1

    def action_distribution(self, memory: Any, step: Step) -> DiagonalGaussian:  # type: ignore[override]
        return DiagonalGaussian(torch.full((len(memory), 2), self.mean), torch.full((2,), math.log(0.1)))


def at_start(rows: int) -> Step:
    """The first step of a trial on the plane."""
    nothing = torch.zeros(rows)
    return Step(torch.zeros(rows, 2), torch.zeros(rows, 2), nothing, nothing)


def test_normal_distributions_are_mixed_as_densities():
    """Half of the actions are each member's, and their log-probability is that under the mixture."""
    ensemble = Ensemble([Drawn(-0.5), Drawn(0.5)])
    acted, _ = ensemble.act(ensemble.begin(4000), at_start(4000), rng.fold(rng.key(0), torch.arange(4000)))
    own = ensemble.units.to_own(acted.action)
    assert float((own[:, 0] > 0).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert bool(((own > 0).all(-1) | (own < 0).all(-1)).all()), "an action is of one member"
    normals = [torch.distributions.Normal(mean, 0.1).log_prob(own).sum(-1) for mean in (-0.5, 0.5)]
    expected = torch.logsumexp(torch.stack(normals), dim=0) - math.log(2)
    torch.testing.assert_close(acted.log_prob, expected, rtol=1e-3, atol=1e-3)


def test_a_greedy_action_is_the_mode_that_the_mixture_prefers():
    ensemble = Ensemble([Drawn(-0.5), Drawn(0.5), Drawn(0.55)])
    acted, _ = ensemble.act(ensemble.begin(3), at_start(3), rng.fold(rng.key(0), torch.arange(3)), greedy=True)
    assert bool((ensemble.units.to_own(acted.action) >= 0.49).all())


def test_sampled_disagreement_is_the_divergence():
    """Members far apart have ln 2, equal ones nothing; in between it agrees with the sum over a categorical."""
    for mean, expected in ((0.5, 0.0), (-0.5, math.log(2))):
        ensemble = Ensemble([Drawn(mean), Drawn(0.5)])
        after = ensemble.act(ensemble.begin(50), at_start(50), rng.fold(rng.key(0), torch.arange(50)))[1]
        assert float(after.disagreement.mean()) == pytest.approx(expected, abs=1e-3)
    log_probs, log_weights = torch.tensor([[[0.9, 0.1], [0.2, 0.8]]]).log(), torch.tensor([[0.25, 0.75]]).log()
    keys = rng.fold(rng.key(0), torch.arange(20_000))
    drawn = [rng.choice(rng.fold(keys, i), log_probs[0, i].exp().expand(20_000, 2)) for i in range(2)]
    sampled = torch.stack([log_probs[0].T[each] for each in drawn], dim=1)[:, None]  # (S, 1, M, M)
    torch.testing.assert_close(
        sampled_disagreement(sampled, log_weights), disagreement(log_probs, log_weights), rtol=0.05, atol=0.0
    )


def test_a_critic_judges_a_member_that_predicts_no_rewards():
    """Weights are Bayes' rule on one-step errors of the critics, each in its own size."""
    members = [Drawn(0.0, value=-1.0), Drawn(0.0, value=-4.0)]
    ensemble = Ensemble(members, "likelihood")
    memory, key = ensemble.begin(1), rng.fold(rng.key(0), torch.arange(1))
    _, memory = ensemble.act(memory, at_start(1), key)
    rewarded = at_start(1)._replace(prev_reward=torch.tensor([-0.5]))
    _, memory = ensemble.act(memory, rewarded, key)
    log_probs = [
        torch.distributions.Normal(0.0, size).log_prob(torch.tensor(-0.5 + 0.5 * each.value - each.value))
        for each, size in zip(members, ensemble.residual_sizes, strict=True)
    ]
    torch.testing.assert_close(memory.log_weights[0], torch.stack(log_probs).log_softmax(0))
    torch.testing.assert_close(
        normal_log_prob(torch.tensor(0.3), 2.0), torch.distributions.Normal(0.0, 2.0).log_prob(torch.tensor(0.3))
    )
