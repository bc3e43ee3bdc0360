"""MAML as a plain loop over tasks in PyTorch: the usual shape of public ports, written anew as the stated baseline.

Each task in turn: 20 trajectories side by side, a linear feature baseline, one differentiable gradient step by a
functional forward pass. The meta-step is TRPO (exact Hessian products of the adapted policies' KL divergence, 10 steps
of the conjugate gradient, line search) or PPO (Adam on the clipped surrogate), each a sum over that loop. Settings are
those of `metarl.agents.MAMLConfig`, and so is the environment, Navigation2D, but for its random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn import functional as F

from benchmarks.works import Work

FAST_LR, GAMMA, MAX_KL, DAMPING, CG_STEPS, LS_STEPS, LS_RATIO = 0.1, 0.99, 0.01, 1e-5, 10, 15, 0.8
Params = list[Tensor]


class Episodes(NamedTuple):
    """One round of one task; ``(T, B, …)``."""

    obs: Tensor
    action: Tensor
    log_prob: Tensor
    advantage: Tensor
    mask: Tensor


def build(work: Work, threads: int) -> Callable[[], int]:
    """A function that runs one iteration and returns its steps."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    params = new_params(work.hidden)
    adam = torch.optim.Adam(params, lr=1e-3, eps=1e-5)

    def call() -> int:
        goals = torch.rand(work.rows, 2) - 0.5
        before = [play(params, goal, work) for goal in goals]
        after = [
            play([p.detach() for p in adapt(params, round)], goal, work)
            for goal, round in zip(goals, before, strict=True)
        ]
        if work.outer == "trpo":
            trpo(params, before, after)
        else:
            ppo(params, adam, before, after, work.epochs)
        return int(sum(round.mask.sum() for round in before + after))

    return call


def new_params(hidden: int) -> Params:
    """Two hidden layers and the standard deviation's logarithm."""
    params: Params = []
    for inputs, outputs in ((2, hidden), (hidden, hidden), (hidden, 2)):
        params += [nn.init.xavier_uniform_(torch.empty(outputs, inputs)), torch.zeros(outputs)]
    return [p.requires_grad_() for p in [*params, torch.zeros(2)]]


def policy(params: Params, obs: Tensor, horizon: int = 100) -> Independent:
    """The functional forward pass."""
    x = obs / (0.1 * (horizon + 1))
    for n in (0, 2):
        x = torch.tanh(F.linear(x, params[n], params[n + 1]))
    mean = 0.1 * F.linear(x, params[4], params[5])
    scale = 0.1 * params[6].clamp_min(math.log(0.01)).exp()
    return Independent(Normal(mean, scale, validate_args=False), 1, validate_args=False)


def play(params: Params, goal: Tensor, work: Work) -> Episodes:
    """A round of one task, until every trajectory has ended."""
    position, alive = torch.zeros(work.trajectories, 2), torch.ones(work.trajectories)
    obs, actions, log_probs, rewards, masks = [], [], [], [], []
    with torch.no_grad():
        for _ in range(work.horizon):
            distribution = policy(params, position)
            action = distribution.sample()
            obs.append(position)
            masks.append(alive)
            actions.append(action)
            log_probs.append(distribution.log_prob(action))
            position = position + action.clamp(-0.1, 0.1)
            offset = position - goal
            rewards.append(-offset.norm(dim=-1) * alive)
            alive = alive * ~(offset.abs() < 0.01).all(-1)
            if not bool(alive.any()):
                break
        mask, seen = torch.stack(masks), torch.stack(obs)
        advantage = advantages(seen, torch.stack(rewards), mask)
    return Episodes(seen, torch.stack(actions), torch.stack(log_probs), advantage, mask)


def advantages(obs: Tensor, reward: Tensor, mask: Tensor) -> Tensor:
    """Discounted returns less the linear feature baseline, standardised."""
    returns, running = torch.zeros_like(reward), torch.zeros_like(reward[0])
    for t in range(len(reward) - 1, -1, -1):
        running = reward[t] + GAMMA * running
        returns[t] = running
    time = (torch.arange(len(obs)) / 100.0)[:, None, None].expand(*mask.shape, 1)
    x = torch.cat([obs, obs**2, time, time**2, time**3, torch.ones_like(time)], dim=-1) * mask[..., None]
    x = x.flatten(0, 1).double()
    gram = x.T @ x + 1e-5 * torch.eye(x.shape[1], dtype=x.dtype)
    expected = (x @ torch.linalg.solve(gram, x.T @ returns.flatten().double())).float().view_as(returns)
    centred = (returns - expected - mean(returns - expected, mask)) * mask
    return centred / (mean(centred**2, mask).sqrt() + 1e-8)


def mean(x: Tensor, mask: Tensor) -> Tensor:
    """Over the steps before each trajectory's end."""
    return (x * mask).sum() / mask.sum()


def adapt(params: Params, round: Episodes, differentiable: bool = False) -> Params:
    """One gradient step on a task."""
    loss = -mean(policy(params, round.obs).log_prob(round.action) * round.advantage, round.mask)
    gradients = torch.autograd.grad(loss, params, create_graph=differentiable)
    return [p - FAST_LR * g for p, g in zip(params, gradients, strict=True)]


def surrogate(distribution: Independent, round: Episodes) -> Tensor:
    """The advantages weighted by the likelihood ratio, as a loss."""
    ratio = torch.exp(distribution.log_prob(round.action) - round.log_prob)
    return -mean(ratio * round.advantage, round.mask)


def flat(tensors: tuple[Tensor, ...] | Params) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def frozen(distribution: Independent) -> Independent:
    """The same distribution as constants."""
    base = distribution.base_dist
    return Independent(Normal(base.loc.detach(), base.scale.detach(), validate_args=False), 1, validate_args=False)


def trpo(params: Params, before: list[Episodes], after: list[Episodes]) -> None:
    """A trust-region step."""
    loss = kl = torch.zeros(())
    olds = []
    for first, second in zip(before, after, strict=True):
        new = policy(adapt(params, first, differentiable=True), second.obs)
        olds.append(frozen(new))
        loss = loss + surrogate(new, second) / len(before)
        kl = kl + mean(kl_divergence(olds[-1], new), second.mask) / len(before)
    gradient = flat(torch.autograd.grad(loss, params, retain_graph=True))
    kl_gradient = flat(torch.autograd.grad(kl, params, create_graph=True))

    def product(v: Tensor) -> Tensor:
        return flat(torch.autograd.grad(kl_gradient @ v, params, retain_graph=True)) + DAMPING * v

    direction = conjugate_gradient(product, gradient)
    step = torch.sqrt(2 * MAX_KL / (direction @ product(direction)).clamp_min(1e-12)) * direction
    start = flat(params).detach()
    for number in range(LS_STEPS):
        load(params, start - LS_RATIO**number * step)
        new_loss, new_kl = evaluate(params, before, after, olds)
        if new_loss < float(loss.detach()) and new_kl <= MAX_KL:
            return
    load(params, start)


def evaluate(
    params: Params, before: list[Episodes], after: list[Episodes], olds: list[Independent]
) -> tuple[float, float]:
    """Surrogate and KL divergence of a candidate."""
    loss = kl = 0.0
    for first, second, old in zip(before, after, olds, strict=True):
        adapted = adapt(params, first)
        with torch.no_grad():
            new = policy(adapted, second.obs)
            loss += float(surrogate(new, second)) / len(before)
            kl += float(mean(kl_divergence(old, new), second.mask)) / len(before)
    return loss, kl


def load(params: Params, vector: Tensor) -> None:
    """Write a flat vector into the parameters."""
    with torch.no_grad():
        for p, part in zip(params, vector.split([p.numel() for p in params]), strict=True):
            p.copy_(part.view_as(p))


def conjugate_gradient(product: Callable[[Tensor], Tensor], b: Tensor) -> Tensor:
    """An approximate solution of ``product(x) = b``."""
    x, residual, direction = torch.zeros_like(b), b.clone(), b.clone()
    squared = residual @ residual
    for _ in range(CG_STEPS):
        if float(squared) < 1e-10:
            break
        image = product(direction)
        length = squared / (direction @ image)
        x = x + length * direction
        residual = residual - length * image
        new = residual @ residual
        direction, squared = residual + new / squared * direction, new
    return x


def ppo(
    params: Params, adam: torch.optim.Optimizer, before: list[Episodes], after: list[Episodes], epochs: int
) -> None:
    """Steps of Adam on the clipped surrogate of the adapted policies."""
    for _ in range(epochs):
        adam.zero_grad(set_to_none=True)
        for first, second in zip(before, after, strict=True):
            new = policy(adapt(params, first, differentiable=True), second.obs)
            ratio = torch.exp(new.log_prob(second.action) - second.log_prob)
            gain = torch.minimum(ratio * second.advantage, ratio.clamp(0.8, 1.2) * second.advantage)
            (-mean(gain, second.mask) / len(before)).backward()
        nn.utils.clip_grad_norm_(params, 0.5)
        adam.step()
