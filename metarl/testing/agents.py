"""The contract of agents as a function; import it from `metarl.testing`."""

from __future__ import annotations

import dataclasses
import inspect
import math
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from metarl.core import rng
from metarl.core.agent import AgentConfig, LearningAgent, OwnLoopAgent
from metarl.core.batch_env import Step, make_env
from metarl.core.errors import short
from metarl.core.family import Task, TaskFamily
from metarl.core.faults.given import no_family, wrong_acted
from metarl.core.options import parts_of
from metarl.core.rollout import Agent, Memory, TrialProtocol, run_trial
from metarl.core.tree import leaves, num_rows, take
from metarl.testing.contract import ROWS, Broken, require, same


def check_agent(config: AgentConfig, family: TaskFamily, *, seed: int = 0) -> None:
    """Raise AssertionError unless the agent of `config` keeps the contract of `LearningAgent` on `family`.

    Checked: shapes and types of actions; the same key gives the same action, and a greedy action does not depend on the
    key; the memory is not modified in place, and is used, after a first update at the latest; `begin`'s task
    has no effect, unless the agent has ``told = True``; log-probabilities are those of the actions; a row of a
    batch acts like a batch of one; `update` returns finite floats, changes parameters, and starts at likelihood ratio
    1; a `state_dict` resumes exactly, and without the entries `optimizer.…` it acts as before.
    """
    good = isinstance(config, AgentConfig)
    require(good, f"check_agent takes an AgentConfig, which builds an agent, got {short(config)}.")
    require(not no_family(family), no_family(family))
    tasks = min(config.meta_batch_size, ROWS)
    task = family.sample_tasks(rng.key(seed), tasks)
    agent = config.build(family, seed, torch.device("cpu"))
    _check_declaration(agent)
    episodes = agent.protocol.episodes or min(family.episodes_per_trial, 3)
    _check_acting(agent, family, task)
    if not _uses_memory(agent, family, task):
        learner = config.build(family, seed, torch.device("cpu"))
        _trained(learner, family, task, rng.key(seed), episodes, 0.0)
        require(
            _uses_memory(learner, family, task), f"{type(agent).__name__}.act changes its memory and never uses it."
        )
    _check_blind(agent, family, task, seed)
    _check_log_prob(agent, family, task)
    _check_row(agent, family, task)
    _check_update(config, family, task, seed, episodes)
    _check_resume(config, family, task, seed, episodes)


def _check_declaration(agent: LearningAgent) -> None:
    """Check the agent's protocol, and that its methods accept the arguments of the loop and the evaluator."""
    name, good = type(agent).__name__, isinstance(agent.protocol, TrialProtocol)
    require(good, f"{name}.protocol must be a TrialProtocol, got {short(agent.protocol)}.")
    given: dict[str, tuple[Any, ...]] = {"begin": (1, None), "act": ((), None, None, False), "adapt": ((), None)}
    given["learn" if isinstance(agent, OwnLoopAgent) else "update"] = ("train", 0.0)
    for method, arguments in given.items():
        try:
            inspect.signature(getattr(agent, method)).bind(*arguments)
        except TypeError as error:
            known = OwnLoopAgent if method == "learn" else Agent
            takes = ", ".join(list(inspect.signature(getattr(known, method)).parameters)[1:])
            raise Broken(f"{name}.{method} must take ({takes}): {error}.") from error


def _check_acting(agent: LearningAgent, family: TaskFamily, task: Task) -> None:
    name, rows = type(agent).__name__, num_rows(task) * agent.protocol.envs_per_task
    memory, step, keys = _start(agent, family, task)
    before = [leaf.clone() for leaf in leaves(memory)]
    returned = agent.act(memory, step, keys)
    sentence = wrong_acted(agent, returned, family.action_space, rows)
    require(not sentence, sentence)
    acted, _ = returned
    for field in ("log_prob", "value"):
        x = getattr(acted, field)
        good = x.shape == (rows,) and x.dtype == torch.float32 and bool(x.isfinite().all())
        require(good, f"{name}.act must give a finite float32 {field} of shape ({rows},), got {x.shape}.")
    require(same(before, list(leaves(memory))), f"{name}.act modified the memory that it was given.")
    again, _ = agent.act(memory, step, keys)
    require(same(acted, again), f"{name}.act does not do the same for the same key.")
    greedy, other = (agent.act(memory, step, rng.fold(keys, n), greedy=True)[0] for n in (1, 2))
    require(torch.equal(greedy.action, other.action), f"{name}.act(greedy=True) depends on the key.")


def _uses_memory(agent: LearningAgent, family: TaskFamily, task: Task) -> bool:
    """Return whether a changed memory also changes actions; True if the memory does not change."""
    memory, step, keys = _start(agent, family, task)
    _, after = agent.act(memory, step, keys)
    others = rng.fold(keys, 1)  # the memory may hold draws from `keys`
    fresh, later = (agent.act(each, step, others)[0] for each in (memory, after))
    return same(list(leaves(memory)), list(leaves(after))) or not same(fresh, later)


def _check_blind(agent: LearningAgent, family: TaskFamily, task: Task, seed: int, steps: int = 5) -> None:
    """Check that the actions of a learner do not depend on the task passed to `begin`, which is only for oracles."""
    if agent.told:
        return
    n, split = num_rows(task), "ood" if "ood" in family.splits else "train"
    memory, step, keys = _start(agent, family, task)
    others = [agent.begin(n, family.sample_tasks(rng.key(seed + 1), n, split)), agent.begin(n)]
    env = make_env(family, _repeat(task, agent.protocol.envs_per_task), rng.key(1))
    env.reset()
    for t in range(min(steps, env.max_steps)):  # the task may have an effect only after some steps
        acted, memory = agent.act(memory, step, rng.fold(keys, t))
        for place, other in enumerate(others):
            blind, others[place] = agent.act(other, step, rng.fold(keys, t))
            require(
                same(acted, blind),
                f"{type(agent).__name__} acts on the task given to begin; if it is an oracle, set told = True.",
            )
        _, step = env.step(acted.action)


def _check_log_prob(agent: LearningAgent, family: TaskFamily, task: Task, samples: int = 4000) -> None:
    """Compare the frequencies of actions with their ``exp(log_prob)`` at one step."""
    name, n, each = type(agent).__name__, num_rows(task), agent.protocol.envs_per_task
    one = torch.zeros(n, dtype=torch.int64)
    _, step, _ = _start(agent, family, task)
    memory, step = agent.begin(n, take(task, one)), take(step, torch.zeros(n * each, dtype=torch.int64))
    keys = rng.fold(rng.key(3), torch.arange(n * each))
    acts = [agent.act(memory, step, rng.fold(keys, draw))[0] for draw in range(-(-samples // (n * each)))]
    action, prob = (torch.cat([getattr(acted, part) for acted in acts]) for part in ("action", "log_prob"))
    prob = prob.double().exp()
    if not isinstance(family.action_space, spaces.Box):
        drawn_actions, number = action.unique(dim=0, return_inverse=True)
        # The harmonic mean over the draws of an action is the mean over all rows, also of rows with different policies.
        inverse = [1.0 / prob[number == n] for n in range(len(drawn_actions))]
        claimed = torch.stack([1.0 / x.mean() for x in inverse])
        unsure = torch.stack([x.var(correction=0) / len(x) for x in inverse]) * claimed**4  # 0 for a single policy
        drawn = torch.stack([(number == n).double().mean() for n in range(len(drawn_actions))])
        error = (claimed * (1.0 - claimed) / len(action)).clamp_min(1e-9).sqrt()
        good = bool(((drawn - claimed).abs() < 5.0 * error + 1e-6).all())
        good = good and float(claimed.sum()) < 1.0 + 1e-3 + 5.0 * float(unsure.sum().sqrt())
    else:
        # The mean of 1 / density over the draws that fall into a region is the region's volume. The agent chooses the
        # units of action for its densities, so two regions are compared.
        inner, outer = (_per_volume(action.double(), prob, q) for q in (0.3, 0.1))
        good = bool((inner - outer).mean().abs() < 5.0 * (inner - outer).std() / len(prob) ** 0.5 + 1e-9 * outer.mean())
    require(good, f"{name}.act gives log-probabilities that are not those of the actions that it draws.")


def _per_volume(action: Tensor, prob: Tensor, q: float) -> Tensor:
    """Return 1 / density for draws between the quantiles q and 1 - q, else 0, divided by the volume of this region."""
    low, high = (torch.quantile(action, share, dim=0) for share in (q, 1.0 - q))
    inside = ((action >= low) & (action <= high)).all(-1)
    return torch.where(inside, 1.0 / prob, 0.0) / (high - low).prod()


def _check_row(agent: LearningAgent, family: TaskFamily, task: Task, steps: int = 5) -> None:
    """Check that the last task's rows act as a batch of only this task."""
    n, each = num_rows(task), agent.protocol.envs_per_task
    mine = slice((n - 1) * each, n * each)
    memory, step, keys = _start(agent, family, task)
    alone = agent.begin(1, take(task, slice(n - 1, n)))
    env = make_env(family, _repeat(task, each), rng.key(1))
    env.reset()
    for t in range(min(steps, env.max_steps)):
        acted, memory = agent.act(memory, step, rng.fold(keys, t))
        single, alone = agent.act(alone, take(step, mine), rng.fold(keys[mine], t))
        close = all(torch.allclose(a[mine], b, rtol=1e-3, atol=1e-4) for a, b in zip(acted, single, strict=True))
        wrong = f"{type(agent).__name__}: a row of a batch acts differently from a batch of only that row (step {t})."
        require(close, wrong)
        _, step = env.step(acted.action)


def _check_update(config: AgentConfig, family: TaskFamily, task: Task, seed: int, episodes: int) -> None:
    # With one pass over one minibatch, the metrics are those of the first gradient step.
    parts = {name: _once(getattr(config, name)) for name in parts_of(config)}
    agent = _once(dataclasses.replace(config, **parts)).build(family, seed, torch.device("cpu"))
    name, before = type(agent).__name__, _snapshot(agent)
    metrics = _trained(agent, family, task, rng.key(seed), episodes, 0.0)
    named = isinstance(metrics, dict) and all(type(key) is str for key in metrics)
    floats = named and all(type(value) is float and math.isfinite(value) for value in metrics.values())
    require(floats, f"{name}.update must return finite floats by name, got {metrics}.")
    require(not before or not same(before, _snapshot(agent)), f"{name}.update changed nothing in its state_dict.")
    kl, clipped = metrics.get("loss/approx_kl", 0.0), metrics.get("loss/clip_fraction", 0.0)
    require(abs(kl) < 1e-5, f"{name}: the first step's likelihood ratio is not 1 (approximate KL {kl:.2g}).")
    require(clipped == 0.0, f"{name}: the first step's likelihood ratio is not 1 (clipped: {clipped:.2g}).")


def _once(options: Any) -> Any:
    """Return a configuration, or a part of one, with one pass over one minibatch."""
    names = {field.name for field in dataclasses.fields(options)}
    return dataclasses.replace(options, **{name: 1 for name in ("update_epochs", "num_minibatches") if name in names})


def _check_resume(config: AgentConfig, family: TaskFamily, task: Task, seed: int, episodes: int) -> None:
    first, second = (config.build(family, seed, torch.device("cpu")) for _ in range(2))
    name = type(first).__name__
    _trained(first, family, task, rng.key(seed), episodes, 0.0)
    state = _snapshot(first)
    require(all(isinstance(v, Tensor) for v in state.values()), f"{name}.state_dict must hold only tensors.")
    second.load_state_dict({k: v.clone() for k, v in state.items()})
    require(same(state, _snapshot(second)), f"{name}.state_dict is not the same after load_state_dict.")
    if first.ring is not None:  # the trainer saves the ring separately
        second.ring.load_state_dict({k: v.clone() for k, v in first.ring.state_dict().items()})
    _check_acts_alone(config, family, seed, {k: v for k, v in state.items() if not k.startswith("optimizer.")}, first)
    for agent in (first, second):
        _trained(agent, family, task, rng.key(seed + 1), episodes, 0.5)
    goes_on = same(_snapshot(first), _snapshot(second))
    require(goes_on, f"{name}: after load_state_dict, training does not go on as it would have without it.")


def _check_acts_alone(
    config: AgentConfig, family: TaskFamily, seed: int, state: dict[str, Tensor], trained: LearningAgent
) -> None:
    """Check that an agent acts without optimiser state, as best checkpoints and pretrained agents are stored."""
    name, alone = type(trained).__name__, config.build(family, seed, torch.device("cpu"))
    try:
        alone.load_state_dict({k: v.clone() for k, v in state.items()})
    except KeyError as error:
        raise Broken(
            f"{name}.load_state_dict needs {error.args[0]!r}, which files of agents that only act lack: make the "
            "entries that begin with 'optimizer.' optional."
        ) from error
    mine, theirs = (each.state_dict() for each in (alone, trained))
    equal = all(torch.equal(mine[name], theirs[name]) for name in state)
    require(equal, f"{name}: without the optimiser's state, load_state_dict does not restore the rest.")


def _trained(
    agent: LearningAgent, family: TaskFamily, task: Task, key: Tensor, episodes: int, progress: float
) -> dict[str, float]:
    """Train once, by `update` or in the agent's own loop; return the metrics."""
    if isinstance(agent, OwnLoopAgent):
        return agent.learn("train", progress).metrics
    return agent.update(run_trial(agent, family, task, key, episodes=episodes), progress)


def _start(agent: LearningAgent, family: TaskFamily, task: Task) -> tuple[Memory, Step, Tensor]:
    rows = _repeat(task, agent.protocol.envs_per_task)
    step = make_env(family, rows, rng.key(1)).reset()
    return agent.begin(num_rows(task), task), step, rng.fold(rng.key(2), torch.arange(num_rows(rows)))


def _repeat(task: Task, each: int) -> Task:
    return take(task, torch.arange(num_rows(task)).repeat_interleave(each))


def _snapshot(agent: LearningAgent) -> dict[str, Tensor]:
    state = agent.state_dict()
    flat = isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())
    require(flat, f"{type(agent).__name__}.state_dict must be a flat dictionary of tensors.")
    return {name: value.detach().clone() for name, value in state.items()}
