"""VariBAD: PPO on a learned belief about the task (Zintgraf et al. 2020).

A Bayes-optimal agent acts on its observation and its belief about the task. VariBAD learns the belief where it cannot
be computed. A recurrent *encoder* q(m | τ:t) keeps a Gaussian belief about a latent task m, given the trial so far. A
*decoder* p(τ:H | m) predicts from m the rewards of the whole trial, past and future. For every prefix t of a trial,
both are trained to maximise the evidence lower bound

    ELBO_t = E over m ~ q(m | τ:t) of log p(τ:H | m) - KL(q(m | τ:t) ‖ q(m | τ:t-1)),

where the prior of the first belief is the standard normal distribution. Policy and critic see the observation and the
belief's mean and log-variance, and are trained with PPO, as on an exact belief (`metarl.agents.belief.ppo`). The ELBO
is trained off-policy, on replayed trials of this and earlier iterations.

    each iteration:  play trials                                     act on (s, q(m | τ:t))
                     PPO on them                                     super().update
                     put them into the ring
                     a few times: draw trials, ascend the ELBO       _elbo_step
                     update the running moments of the beliefs       belief.follow
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.profiler import record_function

from metarl.agents.belief.ppo import BeliefMemory, PPOOnBelief
from metarl.agents.varibad.acting import ActingVariBAD
from metarl.agents.varibad.config import VariBADConfig
from metarl.agents.varibad.decoder import Evidence
from metarl.agents.varibad.elbo import elbo
from metarl.agents.varibad.network import VariBADNetwork
from metarl.core import rng
from metarl.core.agent import at
from metarl.core.batch_env import Step
from metarl.core.family import Key, TaskFamily
from metarl.core.rollout import Rollout
from metarl.core.tree import features, tree_map
from metarl.core.units import no_action
from metarl.fast.adam import ClippedAdam
from metarl.fast.capture import Captured
from metarl.learning import ranks
from metarl.learning.encoder import scale_tasks
from metarl.learning.estimators import time_in_trial
from metarl.learning.trial_ring import TrialRing

ELBO_METRICS = "elbo", "reconstruction", "kl"
LATENTS_FOLLOW = 0.05
"""Smallest weight of a new iteration in the running moments of the beliefs, which drift as the encoder learns."""


class VariBAD(PPOOnBelief, config=VariBADConfig):
    """The agent; see the module's docstring. Its `belief` is the encoder, whose states are those of the GRU."""

    config: VariBADConfig
    net: VariBADNetwork

    def __init__(
        self, config: VariBADConfig, family: TaskFamily, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        """Make an untrained agent. Raises ValueError for options that do not fit the family or too large a buffer."""
        self.config, self.family, self.device = config, family, torch.device(device)
        self.ring = TrialRing(config.buffer_size, family)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = VariBADNetwork(config, family, features(scale_tasks(family))).to(self.device)
        self.belief = self.net.belief
        self._setup_training(seed)
        self.elbo_optimizer = ClippedAdam(self.net.learned_by_elbo(), at(config.vae_lr, 0.0))
        self.elbo_key = rng.fold(rng.key(seed, self.device), 2)
        self.elbo_step = Captured(self._elbo_step, self.device, reduces=True)

    @property
    def captured(self) -> dict[str, Captured]:
        return super().captured | {"Steps of the ELBO": self.elbo_step}

    def update(self, trial: list[Rollout], progress: float = 0.0) -> dict[str, float]:
        (rollout,) = trial
        metrics = super().update(trial, progress)
        with record_function("metarl/elbo"):
            self.ring.add(rollout)
            # Update the scales only after PPO: its likelihood ratio is 1 under the scales that the policy acted with.
            if self.config.norm_obs:
                self.net.belief.steps.follow(rollout.step.obs, rollout.mask, 1.0 / self.updates)
            self.net.belief.steps.follow_rewards(rollout.outcome.reward, rollout.mask)
            metrics |= self._train_vae(progress)
            belief = self.net.belief
            belief.follow(belief.raw(rollout.step), rollout.mask, max(LATENTS_FOLLOW, 1.0 / self.updates))
            return metrics

    def _train_vae(self, progress: float) -> dict[str, float]:
        """Take `vae_updates` steps on the ELBO of replayed trials, and return the means of its terms."""
        config = self.config
        self.elbo_optimizer.set_lr(at(config.vae_lr, progress))
        sums = torch.zeros(len(ELBO_METRICS), device=self.device)
        for number in range(config.vae_updates):
            key = rng.fold(rng.fold(self.elbo_key, self.updates), number)
            sums = sums + self.elbo_step(*self._replay(key))
        means = (sums / max(config.vae_updates, 1)).tolist()
        found = dict(zip(ELBO_METRICS, means, strict=True)) | {"replayable": float(len(self.ring))}
        return {f"loss/{name}": value for name, value in found.items()}

    @torch.no_grad()
    def _replay(self, key: Key) -> tuple[Tensor, Evidence, Tensor, Tensor, Tensor, Tensor]:
        """Draw the arguments of `_elbo_step`: trials from the ring, prefixes of them, steps to decode, and noise."""
        config, belief = self.config, self.net.belief
        rollout = self.ring.sample(rng.fold(key, 0), config.vae_batch)
        keys = rng.fold(rng.fold(key, 1), self.ring.own_draws(rng.fold(key, 0), config.vae_batch))
        if self.device.type == "cpu":  # on a GPU, reading the length would force a synchronisation
            rollout = _without_padding(rollout)
        length = rollout.mask.sum(0)
        prefixes, weight = _drawn(rng.fold(keys, 0), config.elbo_terms, rollout.mask, length)
        decoded, mask = _drawn(rng.fold(keys, 1), config.decoded_steps, rollout.mask, length)
        evidence = tree_map(lambda leaf: _take_along(leaf, decoded), self.evidence(rollout))._replace(mask=mask)
        numbers = torch.arange(len(prefixes), device=self.device)[:, None]
        noise = rng.normal(rng.fold(rng.fold(keys, 2), numbers), config.latent_size).to(rollout.mask.dtype)
        task = self.net.standardised(features(rollout.task).to(rollout.mask.dtype))
        return belief.raw(rollout.step), evidence, task, prefixes, weight, noise

    def _elbo_step(
        self, raw: Tensor, evidence: Evidence, task: Tensor, prefixes: Tensor, weight: Tensor, noise: Tensor
    ) -> Tensor:
        """Take one step of Adam up the ELBO of trials ``(T, B, F)``; `weight` ``(P, B)`` is 0 for missing prefixes.

        Returns the values of `ELBO_METRICS`, each a mean over prefixes.
        """
        belief, decoder = self.net.belief, self.net.decoder
        self.elbo_optimizer.zero_grad()
        posterior = belief.gaussian(belief.sequence(raw))  # q(m | τ:t) for every t
        found = elbo(
            posterior, lambda m: decoder.log_likelihood(m, evidence, task), prefixes, noise, self.config.kl_weight
        )
        terms = (torch.stack(found) * weight).flatten(1).sum(1) / ranks.total(weight.sum()).clamp_min(1.0)
        (-terms[0]).backward()
        metrics = ranks.sum_gradients(self.elbo_optimizer.parameters, terms.detach())
        self.elbo_optimizer.step()
        return metrics

    def evidence(self, rollout: Rollout) -> Evidence:
        """Return the targets of the decoder at all steps ``(T, B, …)`` of a rollout, in the networks' units."""
        steps, outcome = self.net.belief.steps, rollout.outcome
        after = Step(outcome.final_obs, rollout.acted.action, outcome.reward, torch.zeros_like(outcome.reward))
        next_obs, action, rest = self.net.belief.raw(after).split(self.net.belief.inputs, dim=-1)
        obs = steps.scaled(rollout.step.obs, 2)
        cells = self.net.decoder.cells
        number = torch.zeros_like(rollout.mask, dtype=torch.int64)
        if cells is not None:
            number = cells(outcome.final_obs.flatten(2))
        return Evidence(obs, action, next_obs, rest[..., 0], number, rollout.mask)

    def goal_map(self, memory: BeliefMemory, points: Tensor) -> Tensor:
        """Return the reward ``(B, P)`` that the agent expects at each of P observations ``(P, D)``, given its memory.

        The decoder predicts it from the mean of the belief: the probability of a positive reward, or the mean reward
        in the family's units. A decoder that reads whole steps is given a step from each point to itself. Raises
        ValueError for an agent that does not decode rewards.
        """
        decoder, belief = self.net.decoder, self.net.belief
        if decoder.reward is None:
            raise ValueError(f"goal_map needs a decoder of rewards, and decode is {list(self.config.decode)}.")
        with torch.no_grad():
            mean = belief.gaussian(memory.belief).mean
            shape = len(points), len(mean)
            obs = points.to(mean.dtype)[:, None].expand(*shape, -1)
            action = no_action(self.family.action_space, shape[0] * shape[1], self.device)
            zeros = torch.zeros(shape, dtype=mean.dtype, device=self.device)
            raw = belief.raw(Step(obs, action.reshape(*shape, *action.shape[1:]), zeros, zeros))
            at_point, no_act, _ = raw.split(belief.inputs, dim=-1)
            cell = zeros.to(torch.int64) if decoder.cells is None else decoder.cells(obs.flatten(2))
            evidence = Evidence(at_point, no_act, at_point, zeros, cell, zeros)
            expected = decoder.expected_reward(mean[None], evidence)[0].T
        return expected if decoder.binary else expected * belief.steps.reward_size

    @torch.no_grad()
    def reward_log_prob(self, memory: BeliefMemory, obs: Tensor, step: Step) -> Tensor:
        """Return the log-likelihood of the reward that `step` shows, ``(B,)``, up to a constant.

        The decoder computes it for the mean of the belief in `memory`, which is the belief before the step. `obs`
        ``(B, *O)`` is the observation on which the step's action was chosen. The result is 0 where an episode has just
        ended: the decoder would need the last observation of that episode, but the step holds the first one of the
        next. Raises ValueError for an agent that does not decode rewards.
        """
        decoder, belief = self.net.decoder, self.net.belief
        if decoder.reward is None:
            raise ValueError(f"reward_log_prob needs a decoder of rewards, and decode is {list(self.config.decode)}.")
        next_obs, action, rest = belief.raw(step).split(belief.inputs, dim=-1)
        cell = torch.zeros(len(obs), dtype=torch.int64, device=obs.device)
        if decoder.cells is not None:
            cell = decoder.cells(step.obs.flatten(1))
        parts = belief.steps.scaled(obs, 1), action, next_obs, rest[..., 0], cell, torch.ones_like(rest[..., 0])
        evidence = Evidence(*(part[None] for part in parts))
        m = belief.gaussian(memory.belief).mean[None]
        found: Tensor = decoder._reward_log_prob(decoder.predict_reward(m, evidence), evidence.reward)
        return torch.where(step.prev_done > 0.5, 0.0, found[0, 0])

    @torch.no_grad()
    def memory_features(self, memory: BeliefMemory, step: Step) -> Mapping[str, Tensor]:
        state = self.belief.posterior(memory.belief, step)
        return {"belief": self.belief.features(state), "state": state}

    def _inputs(self, rollout: Rollout) -> Tensor:
        """Return the networks' inputs at all steps of a trial, ``(T, B, F)``, in one pass of the encoder."""
        return self.net.trial_inputs(rollout.step, self._share(*time_in_trial(rollout.step.prev_done)))

    def acting_module(self, memory: BeliefMemory) -> ActingVariBAD:
        return ActingVariBAD(self.net, self.family.horizon, self.family.episodes_per_trial)

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything that training changes, except the ring, which is saved in separate files."""
        return super().state_dict() | self.elbo_optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        super().load_state_dict(state)
        self.elbo_optimizer.load_state_dict(state)


def _drawn(keys: Key, number: int | None, mask: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Draw `number` steps of each trial with replacement, or return all steps if `number` is None.

    Returns the steps, int64 ``(N, B)``, and their mask, 0 for padding. `keys` ``(B,)`` has one key per trial; `mask`
    ``(T, B)`` and `length` ``(B,)`` say which of the steps were played.
    """
    if number is None:
        every = torch.arange(len(mask), device=mask.device)
        return every[:, None].expand_as(mask), mask
    steps = (rng.uniform(keys, number).T * length).to(torch.int64)
    steps = torch.minimum(steps, (length - 1).clamp_min(0).to(torch.int64))
    return steps, (length > 0).to(mask.dtype).expand(number, -1)


def _take_along(x: Tensor, index: Tensor) -> Tensor:
    """Return the entries of ``(T, B, …)`` at the steps `index` ``(N, B)``: ``(N, B, …)``."""
    return x[index, torch.arange(x.shape[1], device=x.device)]


def _without_padding(rollout: Rollout) -> Rollout:
    """Cut off the steps after the end of the longest trial."""
    longest = int(rollout.mask.sum(0).amax()) if rollout.mask.shape[1] else 1
    cut: Rollout = tree_map(lambda leaf: leaf[: max(longest, 1)], rollout._replace(task=(), target=()))
    return cut._replace(task=rollout.task)
