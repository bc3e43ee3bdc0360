"""Which inner losses of MAML give the right meta-gradient? Measured where the truth is a sum of a few terms.

``python -m benchmarks.surrogate_hessians [--policies 50] [--samples 100000] [--scale 1]`` prints two tables.

A task is three levers with rewards in [0, 1); an episode is one pull, or two, of which the second pays by both. The
expected return J(θ) is then a sum over 3 or 9 sequences of actions, and so is its Hessian. MAML's meta-gradient goes
through the Hessian of the objective that its gradient step climbs (`metarl.agents.maml.adaptation`), so an error there
is an error of the meta-gradient. Advantages are returns minus the exact value of the state. Policies are softmax of a
table of parameters (linear), or a perceptron with 8 tanh units; the parameters are normal with a standard deviation of
`scale`, and what is printed are medians over such policies.

1. Of each objective: the relative error ‖H - ∇²J‖ / ‖∇²J‖ (Frobenius) of its Hessian's expectation, and of a mean over
   `samples` episodes; the spread of one episode's Hessian around its expectation, relative to ‖∇²J‖; and the relative
   error of the meta-gradient of J(θ + ∇J(θ)), a step of size 1 on the expected return.
2. With one pull: the relative error of the expected meta-gradient where the step is made on K sampled episodes, against
   the gradient of the expected return after it. `vpg` with E-MAML's term (``exploration: 1``) has none, whatever K is;
   tests/agents/test_exact_meta_gradients.py shows it of the agent itself.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import jacrev

from metarl.agents.maml.adaptation import INNER_OBJECTIVES
from metarl.agents.maml.rounds import Samples

Policy = Callable[[Tensor], Tensor]
"""Parameters ``(…, P)`` to log-probabilities ``(…, 4, 3)`` of the levers: at the first pull, and after each lever."""

STATES, LEVERS, HIDDEN = 4, 3, 8
SIZES = {"linear": STATES * LEVERS, "one hidden layer": HIDDEN * (STATES + 1 + LEVERS) + LEVERS}
"""Parameters of each policy."""
STEP_SIZE = 1.0
EPISODES = (1, 2, 5, 10, 20)
"""What the second table's steps are made on."""


def linear(theta: Tensor) -> Tensor:
    return torch.log_softmax(theta.unflatten(-1, (STATES, LEVERS)), -1)


def perceptron(theta: Tensor) -> Tensor:
    first, bias, last, out = theta.split([HIDDEN * STATES, HIDDEN, LEVERS * HIDDEN, LEVERS], -1)
    hidden = torch.tanh(first.unflatten(-1, (STATES, HIDDEN)) + bias[..., None, :])
    return torch.log_softmax(hidden @ last.unflatten(-1, (HIDDEN, LEVERS)) + out[..., None, :], -1)


POLICIES: dict[str, Policy] = {"linear": linear, "one hidden layer": perceptron}


class Problem(NamedTuple):
    """Every episode that there is."""

    states: Tensor  # (E, T)
    actions: Tensor  # (E, T)
    rewards: Tensor  # (E, T)


def problem(pulls: int, payoff: Tensor) -> Problem:
    """Of rewards `payoff` (4, 3): the first pull's, and the second's after each lever."""
    actions = torch.tensor(list(itertools.product(range(LEVERS), repeat=pulls)))
    states = torch.cat([torch.zeros(len(actions), 1, dtype=torch.int64), 1 + actions[:, :-1]], 1)
    return Problem(states, actions, payoff[states, actions])


def log_probs(policy: Policy, theta: Tensor, task: Problem) -> Tensor:
    """Of every action ``(…, E, T)``."""
    return policy(theta)[..., task.states, task.actions]


def value(policy: Policy, theta: Tensor, task: Problem) -> Tensor:
    """The expected return J ``(…)``."""
    return (log_probs(policy, theta, task).sum(-1).exp() * task.rewards.sum(-1)).sum(-1)


def advantages(policy: Policy, theta: Tensor, task: Problem, baseline: bool = True) -> Tensor:
    """Returns from each step on ``(E, T)``, minus what a state is worth, exactly."""
    returns = task.rewards.flip(-1).cumsum(-1).flip(-1)
    if not baseline:
        return returns
    chance = log_probs(policy, theta, task).sum(-1).exp()
    worth = torch.zeros_like(returns)
    for t in range(returns.shape[1]):
        same = (task.states[:, None, : t + 1] == task.states[None, :, : t + 1]).all(-1).to(chance.dtype)
        worth[:, t] = (same * chance) @ returns[:, t] / (same @ chance)
    return returns - worth


def objectives(loss: str, policy: Policy, theta: Tensor, task: Problem, baseline: bool = True) -> Tensor:
    """What a gradient step climbs with each episode ``(E,)``; a function of theta with its samples as they are."""
    episodes, pulls = task.actions.shape
    one = torch.ones(1, episodes * pulls, dtype=theta.dtype)
    time = torch.arange(pulls).repeat(episodes)[None]
    new, fixed = log_probs(policy, theta, task).reshape(1, -1), theta.detach()
    old = log_probs(policy, fixed, task).reshape(1, -1)
    advantage = advantages(policy, fixed, task, baseline)
    samples = Samples(old, old, old.detach(), one, one, time, one, one, one, one)
    return (INNER_OBJECTIVES[loss](new, samples).reshape(episodes, pulls) * advantage).sum(-1)


class Found(NamedTuple):
    """Relative errors, one number for each policy."""

    expected: Tensor  # of the Hessian's expectation
    sampled: Tensor  # of the mean over so many episodes
    spread: Tensor  # of one episode's Hessian
    meta_gradient: Tensor


ROWS: dict[str, tuple[str, bool]] = {
    "`vpg`": ("vpg", True),
    "`likelihood_ratio`": ("likelihood_ratio", True),
    "`dice`": ("dice", True),
    "`dice`, no baseline": ("dice", False),
}
"""Loss, and whether it has a baseline; without one this is the DiCE of Foerster et al. 2018 to the letter."""


def draws(name: str, pulls: int, policies: int, scale: float, seed: int) -> Iterator[tuple[Tensor, Problem]]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(policies):
        theta = scale * torch.randn(SIZES[name], generator=generator, dtype=torch.float64)
        yield theta, problem(pulls, torch.rand(STATES, LEVERS, generator=generator, dtype=torch.float64))


def errors(
    name: str, pulls: int, row: str, policies: int = 50, samples: int = 100_000, scale: float = 1.0, seed: int = 0
) -> Found:
    """Of one objective of `ROWS`, on random policies and rewards."""
    policy, (loss, baseline) = POLICIES[name], ROWS[row]
    generator, found = torch.Generator().manual_seed(seed), []
    for theta, task in draws(name, pulls, policies, scale, seed):
        chance = log_probs(policy, theta, task).sum(-1).exp()
        truth = jacrev(jacrev(lambda t, task=task: value(policy, t, task)))(theta)
        each = _second(lambda t, task=task: objectives(loss, policy, t, task, baseline), theta)  # (E, P, P)
        mean = torch.einsum("e,epq->pq", chance, each)
        drawn = torch.multinomial(chance, samples, replacement=True, generator=generator)
        sampled = torch.einsum("e,epq->pq", drawn.bincount(minlength=len(chance)).double() / samples, each)
        spread = (chance * (each - mean).square().sum((1, 2))).sum().sqrt()
        adapted = theta + STEP_SIZE * _policy_gradient(policy, theta, task)
        after = _policy_gradient(policy, adapted, task)
        exact, ours = (after + STEP_SIZE * hessian @ after for hessian in (truth, mean))
        size = truth.norm()
        numbers = (mean - truth).norm() / size, (sampled - truth).norm() / size, spread / size
        found.append(torch.stack([*numbers, (ours - exact).norm() / exact.norm()]))
    return Found(*torch.stack(found, 1))


def _policy_gradient(policy: Policy, theta: Tensor, task: Problem) -> Tensor:
    return jacrev(lambda t: value(policy, t, task))(theta)  # type: ignore[no-any-return]


def _second(function: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    """Hessians of every component; `function` treats the policy that acted as a constant."""
    theta = theta.clone().requires_grad_()
    gradients = [torch.autograd.grad(part, theta, create_graph=True)[0] for part in function(theta)]
    rows = [
        torch.stack([torch.autograd.grad(g, theta, retain_graph=True, allow_unused=True)[0] for g in gradient])
        if gradient.requires_grad
        else torch.zeros(len(theta), len(theta), dtype=theta.dtype)
        for gradient in gradients
    ]
    return torch.stack(rows)


def of_samples(name: str, row: str, episodes: int, policies: int = 50, scale: float = 1.0, seed: int = 0) -> Tensor:
    """Relative errors ``(policies,)`` of the expected meta-gradient, where a step is made on so many sampled pulls.

    `row` is a loss of `INNER_OBJECTIVES`, or ``first order``.
    """
    policy, found = POLICIES[name], []
    counts = torch.tensor([n for n in itertools.product(range(episodes + 1), repeat=LEVERS) if sum(n) == episodes])
    ways = torch.lgamma(torch.tensor(episodes + 1.0)) - torch.lgamma(counts + 1.0).sum(-1)
    for theta, task in draws(name, 1, policies, scale, seed):
        gradients = []
        for which in ("exact", row):
            start = theta.clone().requires_grad_()
            chance = (ways + counts.double() @ log_probs(policy, start, task).sum(-1)).exp()  # of every outcome
            objective = objectives(which if which in INNER_OBJECTIVES else "vpg", policy, start, task)
            each = [torch.autograd.grad(part, start, create_graph=True)[0] for part in objective]
            step = counts.double() / episodes @ torch.stack(each)
            after = start + STEP_SIZE * (step.detach() if which == "first order" else step)
            # The samples are likelier or less so elsewhere: this is what estimators without E-MAML's term leave out.
            chance = chance if which == "exact" else chance.detach()
            gradients.append(torch.autograd.grad((chance * value(policy, after, task)).sum(), start)[0])
        exact, ours = gradients
        found.append((ours - exact).norm() / exact.norm())
    return torch.stack(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", type=int, default=50)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--scale", type=float, default=1.0)
    args = parser.parse_args()
    print(f"| pulls | policy | objective | Hessian | of {args.samples:,} episodes | spread of one | meta-gradient |")
    print("|---|---|---|---:|---:|---:|---:|")
    for pulls, name, row in itertools.product((1, 2), POLICIES, ROWS):
        cells = errors(name, pulls, row, args.policies, args.samples, args.scale)
        print(f"| {pulls} | {name} | {row} | " + " | ".join(f"{float(cell.median()):.2g}" for cell in cells) + " |")
    print("\n| policy | estimator | " + " | ".join(f"K = {k}" for k in EPISODES) + " |")
    print("|---|---|" + "---:|" * len(EPISODES))
    for name, row in itertools.product(POLICIES, ("first order", "vpg", "likelihood_ratio")):
        medians = [of_samples(name, row, k, args.policies, args.scale).median() for k in EPISODES]
        print(f"| {name} | {row} | " + " | ".join(f"{float(median):.2g}" for median in medians) + " |")


if __name__ == "__main__":
    main()
