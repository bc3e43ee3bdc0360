"""What MAML's estimators have as their expectation, on a problem so small that all that can happen is written down.

A task is three levers, an episode one pull or two: 3 or 9 sequences of actions. The return of a policy is then a sum,
and so is the expectation of an estimator, over all trajectories before and after the gradient step.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agents.maml import MAML, MAMLConfig, PPOStep
from metarl.agents.maml.rounds import Samples, credited
from metarl.core.batch_env import Outcome, Step
from metarl.core.family import Key, TaskFamily
from metarl.core.rollout import Acted, Rollout
from metarl.core.tree import stack

STEP_SIZE = 1.5


class Payoff(NamedTuple):
    """What the levers pay, after which lever was pulled before."""

    reward: Tensor  # (B, 4, 3): first index 0 for the first pull, else 1 + the last lever


class Last(NamedTuple):
    seen: Tensor  # (B,) int64: 0, or 1 + the last lever


class Levers(TaskFamily[Payoff, Last]):
    """Deterministic rewards; the observation is the last lever, one-hot, after a constant."""

    splits = ("train",)

    def __init__(self, horizon: int = 2) -> None:
        self.horizon, self.episodes_per_trial = horizon, 1
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (4,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(3)

    def draw_tasks(self, keys: Key, split: str) -> Payoff:
        raise NotImplementedError  # the tests make their tasks

    def reset(self, task: Payoff, key: Key) -> Last:
        return Last(torch.zeros(len(task.reward), dtype=torch.int64))

    def observe(self, task: Payoff, state: Last) -> Tensor:
        return torch.nn.functional.one_hot(state.seen, 4).double()

    def step(self, task: Payoff, state: Last, action: Tensor, key: Key) -> tuple[Last, Tensor, Tensor]:
        reward = task.reward[torch.arange(len(action)), state.seen, action]
        return Last(1 + action), reward, torch.zeros(len(action), dtype=torch.bool)


def payoffs(number: int) -> Payoff:
    generator = torch.Generator().manual_seed(number)
    return Payoff(torch.rand(1, 4, 3, dtype=torch.float64, generator=generator))


def sequences(steps: int) -> list[tuple[int, ...]]:
    return list(itertools.product(range(3), repeat=steps))


def make(horizon: int, **changes) -> MAML:
    """An agent in float64, away from the uniform policy that networks start with. Its baseline is always 0.

    Rewards count as they are: their running size is set to 1.
    """
    fixed = {"gamma": 1.0, "norm_adv": False, "baseline": "network", "hidden_sizes": (3,), "fast_lr": STEP_SIZE}
    agent = MAMLConfig(meta_batch_size=2, **(fixed | changes)).build(Levers(horizon), 0, torch.device("cpu"))
    agent.net.double()
    agent.reward_size.fill_(1.0)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in agent.net.policy.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    return agent


def play(agent: MAML, params: tuple[Tensor, ...], tasks: list[Payoff], actions: list[list[tuple[int, ...]]]) -> Rollout:
    """The rollout in which each task's trajectories take the given actions; policies are `params` ``(N, …)``."""
    family, trajectories = agent.family, len(actions[0])
    task = Payoff(torch.cat([one.reward for one in tasks]).repeat_interleave(trajectories, 0))
    taken = torch.tensor(actions).flatten(0, 1).T  # (T, B)
    state, steps, outcomes, log_probs = family.reset(task, torch.tensor(0)), [], [], []
    zeros = torch.zeros(taken.shape[1], dtype=torch.float64)
    for t, action in enumerate(taken):
        obs = family.observe(task, state)
        x = agent.net.scaling.scaled(obs, 1).unflatten(0, (len(tasks), -1))
        log_probs.append(agent.adaptation.policies(params, x).log_prob(action.unflatten(0, (len(tasks), -1))).flatten())
        state, reward, terminated = family.step(task, state, action, torch.tensor(0))
        last = torch.full_like(terminated, t + 1 == len(taken))
        steps.append(Step(obs, action, zeros, torch.full_like(zeros, float(t == 0))))
        outcomes.append(Outcome(reward, terminated, last, obs))
    step, outcome = stack(steps), stack(outcomes)
    log_prob = torch.stack(log_probs).detach()
    return Rollout(step, Acted(taken, log_prob, torch.zeros_like(log_prob)), outcome, torch.ones_like(log_prob), task)


def probabilities(agent: MAML, params: tuple[Tensor, ...], task: Payoff) -> Tensor:
    """Of every sequence of an episode, under one policy ``(1, …)``; a function of the parameters."""
    every = sequences(agent.family.horizon)
    samples = agent.samples(play(agent, params, [task], [every]), 1)
    log_prob = agent.adaptation.policies(params, samples.x).log_prob(samples.action)
    return log_prob.reshape(len(every), -1).sum(-1).exp()


def expected_return(agent: MAML, params: tuple[Tensor, ...], task: Payoff) -> Tensor:
    """The return of an episode, exactly."""
    rewards = play(agent, params, [task], [sequences(agent.family.horizon)]).outcome.reward.sum(0)
    return (probabilities(agent, params, task) * rewards).sum()


def climb(gain: Tensor, params: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    gradient = torch.autograd.grad(gain, params, create_graph=True)
    return tuple(p + STEP_SIZE * g for p, g in zip(params, gradient, strict=True))


def flat(tensors) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


# ---- one step on the expected return ---------------------------------------------------------------------------------


def weighted(agent: MAML, params: tuple[Tensor, ...], task: Payoff) -> Samples:
    """Every sequence once, weighted by its probability: expectations in place of samples."""
    every, horizon = sequences(agent.family.horizon), agent.family.horizon
    samples = agent.samples(play(agent, params, [task], [every]), 1)
    chance = probabilities(agent, params, task).detach().repeat_interleave(horizon)[None]
    return samples._replace(weight=chance)  # a sum over steps: `fast_lr` then multiplies the gradient of the return


def error(horizon: int, **changes) -> float:
    """How far the meta-gradient is from the gradient of J(θ + α ∇J(θ)), relative to it."""
    agent, task = make(horizon, **changes), payoffs(1)
    start = tuple(p.detach()[None].requires_grad_() for p in agent.net.policy.parameters())
    adapted = climb(expected_return(agent, start, task), start)
    exact = flat(torch.autograd.grad(expected_return(agent, adapted, task), start))
    before = weighted(agent, agent.adaptation.initial(agent.meta, 1), task)
    after = agent.adaptation.adapt(agent.meta, [before, before]).params[0]
    data = [before, weighted(agent, after, task)]
    loss = agent.outer.loss(agent.adaptation.adapt(agent.meta, data, differentiable=True).policies, data)
    found = -flat(torch.autograd.grad(loss, agent.meta))
    return float((found - exact).norm() / exact.norm())


@pytest.mark.parametrize(("inner_loss", "horizon"), [("dice", 1), ("dice", 2), ("likelihood_ratio", 1)])
@pytest.mark.parametrize("hidden", [(), (3,)], ids=["linear", "one hidden layer"])
def test_the_meta_gradient_is_exact(inner_loss: str, horizon: int, hidden: tuple[int, ...]):
    assert error(horizon, inner_loss=inner_loss, hidden_sizes=hidden) < 1e-10


def test_the_likelihood_ratio_forgets_what_an_action_owes_to_those_before_it():
    assert 0.001 < error(2, inner_loss="likelihood_ratio") < error(2, inner_loss="vpg")


@pytest.mark.parametrize("horizon", [1, 2])
def test_that_of_vpg_is_not(horizon: int):
    assert error(horizon, inner_loss="vpg") > 0.05


def test_maml_with_vpg_is_fomaml_for_a_linear_policy_with_one_decision():
    """Advantages around their mean: the Hessian of log π is the same for every action, so their sum leaves nothing."""
    gradients = []
    for first_order in (False, True):
        agent = make(1, hidden_sizes=(), norm_adv=True, first_order=first_order)
        params = agent.adaptation.initial(agent.meta, 1)
        actions = [[(0,), (1,), (1,), (2,), (0,), (2,), (2,)]]
        data = [agent.samples(play(agent, params, [payoffs(1)], actions), 1) for _ in range(2)]
        loss = agent.outer.loss(agent.adaptation.adapt(agent.meta, data, differentiable=True).policies, data)
        gradients.append(flat(torch.autograd.grad(loss, agent.meta)))
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)
    assert gradients[0].norm() > 0.1


# ---- E-MAML: steps on so many trajectories ---------------------------------------------------------------------------


def trials(agent: MAML, task: Payoff, trajectories: int, steps: int) -> Iterator[tuple[list[list], float]]:
    """Every trial of a task: the sequences of each round (one trajectory in the last), and the trial's probability."""

    def go_on(data: list[Samples], played: list[list], chance: float) -> Iterator[tuple[list[list], float]]:
        if len(played) > steps:
            yield played, chance
            return
        params = (
            agent.adaptation.adapt(agent.meta, [*data, data[-1]]).params[-1]
            if data
            else agent.adaptation.initial(agent.meta, 1)
        )
        of_one = probabilities(agent, params, task).tolist()
        every = list(enumerate(sequences(agent.family.horizon)))
        for chosen in itertools.product(every, repeat=trajectories if len(played) < steps else 1):
            actions = [sequence for _, sequence in chosen]
            samples = agent.samples(play(agent, params, [task], [actions]), 1)
            share = float(np.prod([of_one[number] for number, _ in chosen]))
            yield from go_on([*data, samples], [*played, actions], chance * share)

    return go_on([], [], 1.0)


def exact_gradient(agent: MAML, task: Payoff, trajectories: int, steps: int) -> Tensor:
    """Of the expected return after `steps` gradient steps on so many trajectories each, by autograd over all trials."""
    start = tuple(p.detach()[None].requires_grad_() for p in agent.net.policy.parameters())
    every = sequences(agent.family.horizon)
    total = torch.zeros((), dtype=torch.float64)

    def go_on(params: tuple[Tensor, ...], chance: Tensor, left: int) -> Tensor:
        if not left:
            return chance * expected_return(agent, params, task)
        of_one, found = probabilities(agent, params, task), total
        for chosen in itertools.product(range(len(every)), repeat=trajectories):
            samples = agent.samples(play(agent, params, [task], [[every[n] for n in chosen]]), 1)
            log_prob = agent.adaptation.policies(params, samples.x).log_prob(samples.action)
            # The samples are data here: their returns do not move with the parameters, their probability does.
            gain = (log_prob * samples.advantage * samples.weight).sum()
            found = found + go_on(climb(gain, params), chance * of_one[list(chosen)].prod(), left - 1)
        return found

    return flat(torch.autograd.grad(go_on(start, total + 1.0, steps), start))


def after(agent: MAML, data: list[Samples], tasks: int) -> tuple[Tensor, ...]:
    """The parameters of each task after gradient steps on all rounds."""
    if not data:
        return agent.adaptation.initial(agent.meta, tasks)
    return agent.adaptation.adapt(agent.meta, [*data, data[-1]]).params[-1]


CASES = [(1, 2, 1), (2, 1, 1), (1, 1, 2)]  # horizon, trajectories a round, gradient steps


def expected_gradient(agent: MAML, task: Payoff, trajectories: int, steps: int) -> Tensor:
    """The mean of the agent's own meta-gradient over all trials of a task, in the units of the return.

    Beside it the batch holds another task with a trial of its own, whose score is the baseline.
    """
    mean: Tensor | float = 0.0
    tasks, (other, _) = [task, payoffs(2)], next(trials(agent, payoffs(2), trajectories, steps))
    first = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    for played, chance in trials(agent, task, trajectories, steps):
        data: list[Samples] = []
        for actions in zip(played, other, strict=True):
            params = (
                agent.adaptation.adapt(agent.meta, [*data, data[-1]]).params[-1]
                if data
                else agent.adaptation.initial(agent.meta, 2)
            )
            data.append(agent.samples(play(agent, params, tasks, list(actions)), 2))
        if agent.config.exploration:
            data = credited(data, slice(-1, None))
        # The gradient of the first task alone, which is half of the mean over both.
        data = [
            samples._replace(advantage=first * samples.advantage, credit=first * samples.credit) for samples in data
        ]
        if isinstance(agent.config.outer, PPOStep):
            agent.net.zero_grad()
            agent.outer.add_gradient(data, [], share=1.0)
            gradient = flat([p.grad for p in agent.meta])
        else:
            loss = agent.outer.loss(agent.adaptation.adapt(agent.meta, data, differentiable=True).policies, data)
            gradient = flat(torch.autograd.grad(loss, agent.meta))
        mean = mean - 2 * chance * agent.family.horizon * gradient  # `weight` divides by the steps of an episode
    assert isinstance(mean, Tensor)
    return mean


@pytest.mark.parametrize(("horizon", "trajectories", "steps"), CASES)
@pytest.mark.parametrize("outer", ["trpo", "ppo"])
def test_with_exploration_the_expected_meta_gradient_is_that_of_the_return(
    horizon: int, trajectories: int, steps: int, outer: str
):
    agent = make(horizon, exploration=1.0, inner_steps=steps, fast_batch_size=trajectories, outer=outer)
    exact = exact_gradient(agent, payoffs(1), trajectories, steps)
    torch.testing.assert_close(expected_gradient(agent, payoffs(1), trajectories, steps), exact, rtol=1e-9, atol=1e-12)
    agent.config.exploration = 0.0
    without = expected_gradient(agent, payoffs(1), trajectories, steps)
    assert float((without - exact).norm() / exact.norm()) > 0.05, "the term is not small here"
