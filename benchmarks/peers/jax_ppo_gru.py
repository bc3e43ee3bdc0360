"""RL² by PPO with a GRU in plain JAX, one iteration being one compiled program (the style of purejaxrl).

Same inputs, sizes, epochs and minibatches as `metarl.agents.rl2` with its defaults, and the same rules: a trial starts
with an empty memory, minibatches hold whole trials, advantages and the critic's targets are standardised, Adam with
the gradient's norm clipped. In the update the inputs of all steps are projected by one product before the scan.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax, random

from benchmarks.works import BANDIT, Work

GAMMA, LAMBDA, CLIP, ENTROPY, VALUE, NORM, RATE = 0.99, 0.95, 0.2, 0.01, 0.5, 0.5, 1e-3
ARMS = 5
Params = dict[str, Any]


class Env(NamedTuple):
    """The state of all rows between two steps, beside the inputs of the policy."""

    position: Any  # (B, 2); unused by the bandit
    time: Any  # (B,) steps since the episode began
    episode: Any  # (B,)


class Sample(NamedTuple):
    """What the update needs of each step, ``(T, B, …)``."""

    x: Any
    action: Any
    log_prob: Any
    value: Any
    reward: Any
    mask: Any


class Train(NamedTuple):
    """All that training changes."""

    params: Params
    mean: Params  # Adam's first moments
    square: Params  # and second
    count: Any
    return_mean: Any
    return_std: Any


def build(work: Work, threads: int) -> Callable[[], int]:
    """A function that runs one iteration and returns its steps. Threads are those of the cores of this process."""
    discrete = work.family == BANDIT
    state = start(random.key(0), work, discrete)
    iteration = jax.jit(functools.partial(iterate, work=work, discrete=discrete), donate_argnums=0)
    number = 0

    def call() -> int:
        nonlocal state, number
        number += 1
        state, steps, loss = iteration(state, random.key(number))
        assert math.isfinite(float(loss))
        return int(steps)

    return call


def start(key: Any, work: Work, discrete: bool) -> Train:
    """Orthogonal weights, zero biases, nothing learned."""
    inputs, outputs, size = (ARMS + 3, ARMS, work.hidden) if discrete else (6, 2, work.hidden)
    keys = random.split(key, 6)
    matrix = jax.nn.initializers.orthogonal
    params = {
        "w_ih": matrix()(keys[0], (inputs, 3 * size)),
        "w_hh": matrix()(keys[1], (size, 3 * size)),
        "b_ih": jnp.zeros(3 * size),
        "b_hn": jnp.zeros(size),
        "policy_h": matrix(0.01)(keys[2], (size, outputs)),
        "policy_x": matrix(0.01)(keys[3], (inputs, outputs)),
        "policy_b": jnp.zeros(outputs),
        "critic_h": matrix()(keys[4], (size, 1)),
        "critic_x": matrix()(keys[5], (inputs, 1)),
        "critic_b": jnp.zeros(1),
    }
    if not discrete:
        params["log_std"] = jnp.full(outputs, math.log(0.6))
    zeros = jax.tree.map(jnp.zeros_like, params)
    return Train(params, zeros, jax.tree.map(jnp.copy, zeros), jnp.zeros(()), jnp.zeros(()), jnp.ones(()))


def gru_cell(params: Params, h: Any, projected: Any) -> Any:
    """The next state from the last one and the projected input (the equations of `torch.nn.GRU`)."""
    size = h.shape[-1]
    recurrent = h @ params["w_hh"]
    gates = jax.nn.sigmoid(projected[..., : 2 * size] + recurrent[..., : 2 * size])
    reset, update = gates[..., :size], gates[..., size:]
    new = jnp.tanh(projected[..., 2 * size :] + reset * (recurrent[..., 2 * size :] + params["b_hn"]))
    return new + update * (h - new)


def heads(params: Params, h: Any, x: Any) -> tuple[Any, Any]:
    """Logits (or means, in units of the action's range) and values."""
    logits = h @ params["policy_h"] + x @ params["policy_x"] + params["policy_b"]
    return logits, (h @ params["critic_h"] + x @ params["critic_x"] + params["critic_b"])[..., 0]


def log_prob_entropy(params: Params, logits: Any, action: Any, discrete: bool) -> tuple[Any, Any]:
    """Of the actions taken, ``(…)`` each."""
    if discrete:
        log_probs = jax.nn.log_softmax(logits)
        chosen = jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]
        return chosen, -(jnp.exp(log_probs) * log_probs).sum(-1)
    log_std = params["log_std"] + math.log(0.1)
    z = (action - 0.1 * logits) * jnp.exp(-log_std)
    log_prob = (-0.5 * z * z - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)
    entropy = (log_std + 0.5 + 0.5 * math.log(2 * math.pi)).sum()
    return log_prob, jnp.broadcast_to(entropy, log_prob.shape)


def env_step(env: Env, task: Any, action: Any, key: Any, work: Work, discrete: bool) -> tuple[Env, Any, Any]:
    """The next state, where a row whose episode ended starts its next one; the policy's next input; the reward."""
    if discrete:
        chosen = jnp.take_along_axis(task, action[:, None], axis=1)[:, 0]
        reward = (random.uniform(key, chosen.shape) < chosen).astype(jnp.float32)
        done = jnp.ones_like(reward)
        x = jnp.concatenate([0 * task[:, :1], jax.nn.one_hot(action, ARMS), reward[:, None], done[:, None]], axis=1)
        return Env(env.position, env.time, env.episode + 1), x, reward
    position = env.position + jnp.clip(action, -0.1, 0.1)
    offset = position - task
    reward = -jnp.sqrt((offset * offset).sum(-1))
    time = env.time + 1
    done = (jnp.abs(offset) < 0.01).all(-1) | (time >= work.horizon)
    position = jnp.where(done[:, None], 0.0, position)
    scaled = position / (0.1 * (work.horizon + 1))
    x = jnp.concatenate([scaled, action, reward[:, None], done[:, None].astype(jnp.float32)], axis=1)
    return Env(position, jnp.where(done, 0, time), env.episode + done), x, reward


def rollout(train: Train, key: Any, work: Work, discrete: bool) -> Sample:
    """A trial of new tasks."""
    params, rows = train.params, work.rows
    key, task_key = random.split(key)
    task = random.uniform(task_key, (rows, ARMS)) if discrete else random.uniform(task_key, (rows, 2)) - 0.5
    env = Env(jnp.zeros((rows, 2)), jnp.zeros(rows, jnp.int32), jnp.zeros(rows, jnp.int32))

    def step(carry: Any, key: Any) -> Any:
        env, x, h = carry
        h = gru_cell(params, h, x @ params["w_ih"] + params["b_ih"])
        logits, value = heads(params, h, x)
        act_key, env_key = random.split(key)
        if discrete:
            action = random.categorical(act_key, logits)
        else:
            action = 0.1 * (logits + jnp.exp(params["log_std"]) * random.normal(act_key, logits.shape))
        log_prob, _ = log_prob_entropy(params, logits, action, discrete)
        mask = (env.episode < work.episodes).astype(jnp.float32)
        env, next_x, reward = env_step(env, task, action, env_key, work, discrete)
        value = value * train.return_std + train.return_mean
        return (env, next_x, h), Sample(x, action, log_prob, value, reward * mask, mask)

    first = (env, jnp.zeros((rows, params["w_ih"].shape[0])), jnp.zeros((rows, work.hidden)))
    return lax.scan(step, first, random.split(key, work.steps))[1]


def advantages(sample: Sample) -> Any:
    """Generalised advantage estimates ``(T, B)``; the end of the trial is the only one."""
    follows = jnp.concatenate([sample.mask[1:], jnp.zeros_like(sample.mask[:1])])
    next_value = jnp.concatenate([sample.value[1:], jnp.zeros_like(sample.value[:1])])
    delta = sample.reward + GAMMA * follows * next_value - sample.value

    def step(running: Any, now: Any) -> Any:
        running = now[0] + GAMMA * LAMBDA * now[1] * running
        return running, running

    return lax.scan(step, jnp.zeros_like(delta[0]), (delta, follows), reverse=True)[1] * sample.mask


def loss(params: Params, sample: Sample, advantage: Any, target: Any, discrete: bool) -> Any:
    """PPO's loss of a minibatch."""
    projected = sample.x @ params["w_ih"] + params["b_ih"]  # (T, B, 3 H)

    def step(h: Any, now: Any) -> Any:
        h = gru_cell(params, h, now)
        return h, h

    h = lax.scan(step, jnp.zeros((sample.x.shape[1], params["w_hh"].shape[0])), projected)[1]
    logits, value = heads(params, h, sample.x)
    log_prob, entropy = log_prob_entropy(params, logits, sample.action, discrete)
    ratio = jnp.exp(log_prob - sample.log_prob)
    gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage)
    each = -gain + VALUE * 0.5 * (value - target) ** 2 - ENTROPY * entropy
    return masked_mean(each, sample.mask)


def adam(train: Train, gradient: Params) -> Train:
    """One step, the gradient's norm clipped."""
    norm = jnp.sqrt(sum((g * g).sum() for g in jax.tree.leaves(gradient)))
    scale = jnp.minimum(1.0, NORM / (norm + 1e-6))
    count = train.count + 1
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * scale * g, train.mean, gradient)
    square = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * (scale * g) ** 2, train.square, gradient)
    first, second = 1 - 0.9**count, 1 - 0.999**count
    params = jax.tree.map(
        lambda p, m, s: p - RATE * (m / first) / (jnp.sqrt(s / second) + 1e-5), train.params, mean, square
    )
    return train._replace(params=params, mean=mean, square=square, count=count)


def masked_mean(x: Any, mask: Any) -> Any:
    """Over the entries where `mask` is 1."""
    return (x * mask).sum() / mask.sum()


def iterate(train: Train, key: Any, work: Work, discrete: bool) -> tuple[Train, Any, Any]:
    """Rollout, advantages, epochs of minibatches: the new state, the steps taken, the mean loss."""
    key, roll_key = random.split(key)
    sample = rollout(train, roll_key, work, discrete)
    advantage = advantages(sample)
    target = advantage + sample.value
    mean = masked_mean(target, sample.mask)
    std = jnp.maximum(jnp.sqrt(masked_mean((target - mean) ** 2, sample.mask)), 1e-3)
    updates = train.count / (work.epochs * work.minibatches)
    weight = jnp.maximum(0.05, 1.0 / (updates + 1))
    return_mean = train.return_mean + weight * (mean - train.return_mean)
    train = train._replace(return_mean=return_mean, return_std=train.return_std + weight * (std - train.return_std))
    target = (target - train.return_mean) / train.return_std
    centred = (advantage - masked_mean(advantage, sample.mask)) * sample.mask
    advantage = centred / (jnp.sqrt(masked_mean(centred**2, sample.mask)) + 1e-8)
    data = (sample, advantage, target)

    def minibatch(train: Train, index: Any) -> tuple[Train, Any]:
        part = jax.tree.map(lambda x: jnp.take(x, index, axis=1), data)
        value, gradient = jax.value_and_grad(loss)(train.params, *part, discrete)
        return adam(train, gradient), value

    def epoch(train: Train, key: Any) -> tuple[Train, Any]:
        order = random.permutation(key, work.rows).reshape(work.minibatches, -1)
        return lax.scan(minibatch, train, order)

    train, losses = lax.scan(epoch, train, random.split(key, work.epochs))
    return train, sample.mask.sum(), losses.mean()
