"""Meta-steps: from what the tasks' rounds taught to new parameters to start from.

Each is a function (agent, rounds, progress) → metrics that changes ``agent.meta``. The rounds are those of one trial:
all but the last were adapted to; the last, and with ``meta_rounds: all`` all but the first, are to become better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from metarl import rng
from metarl.agent import at
from metarl.agents import meta_gradient
from metarl.agents.rounds import Round, first_trajectories
from metarl.distributions import Distribution
from metarl.losses import clipped_surrogate
from metarl.tree import detach as detached
from metarl.tree import take as rows
from metarl.trust_region import fisher_products, full_step, line_search, unflatten

if TYPE_CHECKING:
    from metarl.agents.maml import MAML

Meta = tuple[Tensor, ...]  # the policy's parameters, then the learned step sizes
FISHER_STATES = 10_000
"""Steps of all tasks together that Fisher products are made from, where `fisher_share` is not given."""

PPO_STEPS = 20_000
"""Steps of a round that PPO's gradient is made from at once on a CPU, where `task_chunk` is not given: the tensors of
more do not stay in its cache."""

Path = list[tuple[Tensor, ...]]  # parameters (N, …) after each gradient step


class Adapted(NamedTuple):
    """Where an adaptation led."""

    distribution: Distribution  # the adapted policies on the states of the rounds that the meta-step improves
    trusted: Distribution  # policies on the states of the rounds that the trust region is about
    inner: list[Distribution]  # the policies before each gradient step on the states of its round
    path: Path


class Proposal(NamedTuple):
    """What the line search of `trpo` starts from."""

    step: Tensor  # (P,)
    loss: Tensor  # the surrogate's
    entropy: Tensor
    grad_norm: Tensor
    olds: list[Distribution]  # the trusted policies before the step, of each chunk of tasks


def trpo(agent: MAML, data: list[Round], progress: float) -> dict[str, float]:
    """A trust-region step of the surrogate after adaptation; the KL divergence is that of the adapted policies.

    Schulman et al. 2015, as Finn et al. 2017, section 5.3 use it; with ``trust: all`` also of those before each step.
    """
    config, meta = agent.config, agent.meta
    proposal: Proposal = agent.propose(data)
    loss, entropy, grad_norm = torch.stack(proposal[1:4]).tolist()

    def evaluate(theta: Tensor) -> tuple[float, float]:
        new_loss, kl = agent.judge(data, proposal.olds, theta).tolist()
        return new_loss, kl

    step = line_search(
        _flat(meta).detach(),
        proposal.step,
        evaluate,
        loss,
        max_kl=config.max_kl,
        ls_max_steps=config.ls_max_steps,
        ls_backtrack_ratio=config.ls_backtrack_ratio,
    )
    with torch.no_grad():
        for parameter, value in zip(meta, unflatten(step.theta, meta), strict=True):
            parameter.copy_(value)
    return {
        "loss/surrogate_before": loss,
        "loss/surrogate_after": step.loss,
        "loss/kl_before": 0.0,
        "loss/kl_after": step.kl,
        "loss/line_search_accepted": float(step.accepted),
        "loss/line_search_backtracks": float(step.backtracks),
        "loss/entropy": entropy,
        "loss/grad_norm": grad_norm,
    }


def propose(agent: MAML, data: list[Round]) -> Proposal:
    """The longest step of `trpo`; ``agent.propose`` is this, recorded where it can be."""
    config, meta, zero = agent.config, agent.meta, torch.zeros((), device=agent.device)
    chunks = _chunks(agent, data)
    gradient, loss, entropy = zero, zero, zero
    olds: list[Distribution] = []
    paths: list[Path] = []
    for chunk, share in chunks:
        new, trusted, _, path = adapted = agent.adapted(meta, chunk, differentiable=True)
        surrogate = trpo_loss(agent, adapted, chunk)
        gradient = gradient + share * _flat(torch.autograd.grad(surrogate, meta))
        olds.append(detached(trusted))
        paths.append([tuple(p.detach() for p in params) for params in path])
        loss = loss + share * surrogate.detach()
        entropy = entropy + share * _mean(detached(new).entropy(), agent.judged(chunk))
    products = fisher(agent, chunks, paths)
    step = full_step(gradient, products, max_kl=config.max_kl, cg_iters=config.cg_iters, cg_damping=config.cg_damping)
    return Proposal(step, loss, entropy, gradient.norm(), olds)


def judge(agent: MAML, data: list[Round], olds: list[Distribution], theta: Tensor) -> Tensor:
    """Surrogate loss and mean KL (2,) at other parameters `theta` (P,); ``agent.judge`` is this, recorded likewise."""
    candidate, found = unflatten(theta, agent.meta), torch.zeros(2, device=agent.device)
    for (chunk, share), old in zip(_chunks(agent, data), olds, strict=True):
        new = agent.adapted(candidate, chunk)
        loss = trpo_loss(agent, new, chunk)
        found = found + share * torch.stack([loss, mean_kl(old, new.trusted, agent.trusted(chunk))]).detach()
    return found


def trpo_loss(agent: MAML, adapted: Adapted, data: list[Round]) -> Tensor:
    """The loss that `trpo` descends: the surrogate of the adapted policies, and E-MAML's of those before each step."""
    loss = surrogate_loss(adapted.distribution, agent.judged(data))
    if agent.config.exploration:
        for before, round in zip(adapted.inner, data[:-1], strict=True):
            loss = loss + agent.config.exploration * surrogate_loss(before, round._replace(advantage=round.credit))
    return loss


def fisher(agent: MAML, chunks: list[tuple[list[Round], float]], paths: list[Path]) -> Callable[[Tensor], Tensor]:
    """Products with the Fisher matrix of the trusted policies, through the adaptation.

    The graph of one chunk is kept for all products; that of several is made anew for each, one at a time. A part of
    each task's trajectories stands for all of them where `fisher_share` says so, at the same adapted parameters.
    """
    config = agent.config
    few = _fisher_trajectories(agent, [chunk for chunk, _ in chunks])

    def of_chunk(chunk: list[Round], share: float, path: Path) -> Callable[[Tensor], Tensor]:
        part = [first_trajectories(round, few, config.fast_batch_size) for round in chunk]
        new = agent.adapted(agent.meta, part, differentiable=True, path=path).trusted
        weight = agent.trusted(part).weight
        return fisher_products(new, agent.meta, weight * (share / len(weight)))

    parts = [(*chunk, path) for chunk, path in zip(chunks, paths, strict=True)]
    if len(parts) == 1:
        return of_chunk(*parts[0])
    return lambda v: torch.stack([of_chunk(*part)(v) for part in parts]).sum(0)


def _fisher_trajectories(agent: MAML, chunks: list[list[Round]]) -> int:
    """How many of each task's trajectories Fisher products are made from."""
    share, trajectories = agent.config.fisher_share, agent.config.fast_batch_size
    if share is None:
        # The matrix is a mean over states: it only sets a direction, whose length the line search checks on all of
        # them, and more states than this cost time without another direction.
        steps = sum(chunk[-1].x.shape[0] * chunk[-1].x.shape[1] for chunk in chunks)
        share = min(1.0, FISHER_STATES / steps)
    return math.ceil(share * trajectories)


def ppo(agent: MAML, data: list[Round], progress: float) -> dict[str, float]:
    """Steps of Adam on the clipped surrogate after adaptation, with ProMP's penalty on what it starts from.

    Schulman et al. 2017 and Rothfuss et al. 2019, algorithm 1.
    """
    config = agent.config
    agent.optimizer.set_lr(at(config.lr, progress))
    olds = agent.adapted(agent.meta, data).inner if config.inner_kl_coef else []
    sums: dict[str, Tensor] = {}
    tasks, whole = len(data[0].x), config.num_minibatches == 1
    for epoch in range(config.update_epochs):
        order = rng.permutation(rng.fold(rng.fold(agent.key, agent.updates), epoch), tasks)
        for index in order.tensor_split(config.num_minibatches):
            part = data if whole else [rows(round, index) for round in data]
            new = agent.minibatch(part, olds if whole else [rows(old, index) for old in olds])
            sums = {name: value + sums.get(name, 0.0) for name, value in new.items()}
    steps = config.update_epochs * config.num_minibatches
    metrics = {name: float(value) / steps for name, value in sums.items()}
    if config.inner_kl_coef:
        metrics |= _adapt_kl_coef(agent, data, olds)
    return metrics | {"loss/lr": at(config.lr, progress)}


def ppo_loss(
    agent: MAML, meta: Meta, data: list[Round], olds: Sequence[Distribution]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss that `ppo` descends, as a function of `meta`; `olds` acted before each gradient step."""
    new, _, inner, _ = agent.adapted(meta, data, differentiable=True)
    return _ppo_loss_of(agent, new, inner, data, olds)


def _ppo_loss_of(
    agent: MAML, new: Distribution, inner: Sequence[Distribution], data: list[Round], olds: Sequence[Distribution]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Of the adapted policies `new`, and those before each gradient step, `inner`."""
    config, judged = agent.config, agent.judged(data)
    loss, metrics = clipped_surrogate(
        new.log_prob(judged.action), judged.log_prob, judged.advantage, judged.weight, config.clip_coef
    )
    metrics |= {"policy": loss.detach(), "entropy": _mean(detached(new).entropy(), judged)}
    if config.exploration:  # E-MAML's term, clipped likewise
        for before, round in zip(inner, data[:-1], strict=True):
            term, _ = clipped_surrogate(
                before.log_prob(round.action), round.log_prob, round.credit, round.weight, config.clip_coef
            )
            loss = loss + config.exploration * term
    if config.inner_kl_coef:
        for coef, old, before, round in zip(agent.kl_coef, olds, inner, data[:-1], strict=True):
            loss = loss + coef * mean_kl(old, before, round)
    return loss, metrics


def descend(agent: MAML, data: list[Round], olds: list[Distribution]) -> dict[str, Tensor]:
    """One step of Adam on some of the tasks; ``agent.minibatch`` is this, recorded where it can be."""
    agent.optimizer.zero_grad()
    sums: dict[str, Tensor] = {}
    start = 0
    for chunk, share in _chunks(agent, data, PPO_STEPS if agent.device.type == "cpu" else None):
        part = slice(start, start + len(chunk[0].x))
        metrics = add_gradient(agent, chunk, [rows(old, part) for old in olds], share)
        sums = {f"loss/{k}": v * share + sums.get(f"loss/{k}", 0.0) for k, v in metrics.items()}
        start = part.stop
    return sums | {"loss/grad_norm": agent.optimizer.step(agent.config.max_grad_norm)}


def add_gradient(agent: MAML, data: list[Round], olds: list[Distribution], share: float) -> dict[str, Tensor]:
    """Add `share` of the loss's gradient to that of ``agent.meta``; the loss's metrics."""
    if not meta_gradient.possible(agent):
        loss, metrics = ppo_loss(agent, agent.meta, data, olds)
        (share * loss).backward()
        return metrics

    def of_played(played: list[Distribution]) -> tuple[Tensor, dict[str, Tensor]]:
        return _ppo_loss_of(agent, agent.judged_policies(played), played[:-1], data, olds)

    gradients, metrics = meta_gradient.meta_gradient(agent, data, of_played)
    for parameter, gradient in zip(agent.meta, gradients, strict=True):
        gradient.mul_(share)
        parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
    return metrics


def _adapt_kl_coef(agent: MAML, data: list[Round], olds: list[Distribution]) -> dict[str, float]:
    """Double (halve) the weight of the penalty of each gradient step whose KL is far above (below) its target."""
    target = agent.config.inner_kl_target
    news = agent.adapted(agent.meta, data).inner
    kls = [float(mean_kl(old, new, round)) for old, new, round in zip(olds, news, data[:-1], strict=True)]
    for n, kl in enumerate(kls):
        agent.kl_coef[n] *= 2.0 if kl > 1.5 * target else 0.5 if kl < target / 1.5 else 1.0
    return {"loss/inner_kl": sum(kls) / len(kls), "loss/inner_kl_coef": float(agent.kl_coef.mean())}


def reptile(agent: MAML, data: list[Round], progress: float) -> dict[str, float]:
    """Move towards the mean of the parameters after a step on every round, the last one too (Nichol et al. 2018)."""
    lr = at(agent.config.lr, progress)
    params: Sequence[Tensor] = agent.copies(agent.meta, len(data[0].x))
    for number, round in enumerate(data):
        params, _ = agent.inner_step(agent.meta, params, round, number)
    moved = torch.zeros((), device=agent.device)
    with torch.no_grad():
        for start, end in zip(agent.meta, params, strict=False):  # learned step sizes, if there are any, stay
            way = end.mean(0) - start
            moved = moved + way.square().sum()
            start.add_(lr * way)
    return {"loss/adapted_distance": float(moved.sqrt()), "loss/lr": lr}


META_STEPS: dict[str, Callable[[Any, list[Round], float], dict[str, float]]] = {
    "trpo": trpo,
    "ppo": ppo,
    "reptile": reptile,
}


def surrogate_loss(new: Distribution, round: Round) -> Tensor:
    """Minus the mean over tasks of the advantages weighted by the likelihood ratio (Schulman et al. 2015, eq. 14)."""
    ratio = torch.exp(new.log_prob(round.action) - round.log_prob)
    return -_mean(ratio * round.advantage, round)


def mean_kl(old: Any, new: Any, round: Round) -> Tensor:
    """Mean over tasks and steps of KL(old ‖ new), two distributions of one kind."""
    return _mean(old.kl(new), round)


def _mean(x: Tensor, round: Round) -> Tensor:
    """Mean over tasks of the means over their steps; `x` is ``(N, M)``."""
    return (x * round.weight).sum(-1).mean()


def _chunks(agent: MAML, data: list[Round], steps: int | None = None) -> list[tuple[list[Round], float]]:
    """The data of some tasks at a time (as many as hold `steps` steps, unless that is configured), and their share."""
    tasks, samples = data[0].x.shape[:2]
    size = agent.config.task_chunk or (tasks if steps is None else max(1, steps // samples))
    parts = [slice(start, min(start + size, tasks)) for start in range(0, tasks, size)]
    return [([rows(round, part) for round in data], (part.stop - part.start) / tasks) for part in parts]


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
