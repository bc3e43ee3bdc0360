"""PEARL: a soft actor-critic that acts on a sample from its posterior over tasks (Rakelly et al. 2019).

A *latent* z represents the task. An encoder maps each transition to a Gaussian factor, and the posterior over z is the
product of these factors and the prior N(0, I) (`metarl.agents.pearl.posterior`). As in posterior sampling, the agent
draws a z at the start of each episode and acts on it until the episode ends: first from the prior, to explore, then
from the posterior. `adapt` therefore only adds the factors of a round to two sums.

PEARL learns off-policy (SAC, Haarnoja et al. 2018): actor and critics see z besides the observation. The encoder is
trained on the critics' loss and on the KL divergence of the posterior from the prior, but not on the actor's loss.
Alternatively it is trained on distances alone, as in FOCAL (`metarl.agents.pearl.metric`), and z is the posterior's
mean.

    each iteration:  play trials of several episodes                 act on (s, z)
                     put them into the ring
                     many times: draw tasks, and for each a context  _replay
                     of recent transitions and a batch to learn from
                     step down the losses                            _descend
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarl.agents.pearl.by_task import ByTask, episodes_of
from metarl.agents.pearl.config import PEARLConfig
from metarl.agents.pearl.metric import Pairs, embedding_loss, weights
from metarl.agents.pearl.network import Memory, PEARLNetwork, check_actions, transitions_of
from metarl.agents.recurrent_sac.losses import actor_loss, critic_loss, soft_value, td_target, temperature_loss
from metarl.agents.recurrent_sac.network import choices, play
from metarl.core import rng
from metarl.core.agent import LearningAgent, at
from metarl.core.batch_env import Step
from metarl.core.family import Key, Task, TaskFamily
from metarl.core.rollout import Acted, Rollout, TrialProtocol
from metarl.core.tree import to_device
from metarl.core.units import inverse
from metarl.fast.adam import ClippedAdam
from metarl.fast.capture import Captured
from metarl.learning import ranks
from metarl.learning.soft import polyak
from metarl.learning.trial_ring import TrialRing

METRICS = "critic", "q", "encoder", "actor", "entropy"
"""Metrics of a gradient step that are summed over all ranks; "encoder" is logged as "kl" or "embedding"."""
OTHERS = "alpha", "encoder_grad_norm", "actor_grad_norm", "critic_grad_norm"


class Batch(NamedTuple):
    """The data of a gradient step: for each of N tasks, a context of C transitions and M transitions to learn from."""

    context: Tensor  # (N, C, F) encoded transitions
    seen: Tensor  # (N, M, S) scaled observations
    action: Tensor  # (N, M) or (N, M, A) in the network's own units
    reward: Tensor  # (N, M) in units of the rewards' running size
    next_seen: Tensor  # (N, M, S)
    following: Tensor  # (N, M) 0 where the episode was terminated
    pairs: Any = ()  # `Pairs` of contexts where distances train the encoder


class PEARL(LearningAgent, config=PEARLConfig):
    """The agent; see the module's docstring."""

    config: PEARLConfig
    step_name = "context episode"

    def __init__(
        self, config: PEARLConfig, family: TaskFamily, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        """Make an untrained agent. Raises ValueError for action or observation spaces that it does not support."""
        self.config, self.family, self.device = config, family, torch.device(device)
        check_actions(family)
        self.protocol = TrialProtocol(config.rounds, episodes=1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = PEARLNetwork(config, family).to(self.device)
        self.optimizers = {name: ClippedAdam(group, 0.0) for name, group in self.net.groups().items()}
        self.ring = TrialRing(config.buffer_size, family, episodes=1)
        self.key = rng.fold(rng.key(seed, self.device), 1)
        self.gradient_step = Captured(self._descend, self.device, reduces=True)
        self.updates = self.trials = 0

    @property
    def title(self) -> str:
        return self.config.title

    @property
    def captured(self) -> dict[str, Captured]:
        return {"Gradient steps": self.gradient_step}

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        prior = self.net.prior(num_tasks)
        rounds = torch.zeros(num_tasks, dtype=torch.int64, device=self.device)
        return Memory(prior, torch.zeros_like(prior.weighted), torch.ones_like(rounds, dtype=torch.bool), rounds)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        """Act on the episode's latent, which is drawn at its first step; if `greedy`, it is the mean of that draw."""
        with torch.no_grad():
            starts = memory.fresh | (step.prev_done > 0)
            latent = torch.where(starts[:, None], self._guess(memory, rng.fold(key, 1), greedy), memory.latent)
            policy = self.net.policy(self.net.scaling.scaled(step.obs, 1), latent)
            action, log_prob = play(policy, key, greedy, noise=0.0)
            # Acting needs no critics, so the value is 0.
            acted = Acted(self.net.actions.to_family(action), log_prob, torch.zeros_like(log_prob))
            return acted, memory._replace(latent=latent, fresh=torch.zeros_like(starts))

    def _guess(self, memory: Memory, key: Key, greedy: bool) -> Tensor:
        """Return latents ``(N, Z)`` for new episodes: to explore in the first rounds, afterwards to exploit."""
        config, prototypes = self.config, self.net.prototypes
        noise = torch.zeros_like(memory.latent) if greedy else rng.normal(key, config.latent_size)
        explored = self.net.prior(len(key)).draw(noise)
        inferred = memory.posterior.mean if config.by_distance else memory.posterior.draw(noise)
        if prototypes is not None:
            drawn = prototypes.mean() if greedy else prototypes.draw(key)
            explored = torch.where(prototypes.count > 0, drawn, explored)
        if config.inference == "nearest":
            inferred = self.net.nearest(memory.posterior.mean)
        return torch.where((memory.rounds < config.prior_rounds)[:, None], explored, inferred)

    def task_embedding(self, memory: Memory) -> Tensor:
        """Return the mean of the posterior, float32 ``(N, Z)``: see `metarl.core.rollout.Embedder`."""
        return memory.posterior.mean

    def adapt(self, memory: Memory, rollout: Rollout) -> Memory:
        """Add the factors of the round's transitions to the posterior's sums."""
        with torch.no_grad():
            factors = self.net.factors(self.net.encoded(transitions_of(rollout)))
            posterior = memory.posterior.times(factors, rollout.mask)
        return Memory(posterior, memory.latent, torch.ones_like(memory.fresh), memory.rounds + 1)

    def update(self, trial: list[Rollout], progress: float = 0.0) -> dict[str, float]:
        config = self.config
        self._keep(trial)
        found = []
        if self.trials >= config.learning_starts:
            by_task = ByTask(self.ring, config.context_episodes or config.rounds)
            schedules = self._schedules(progress)
            # There are no tasks if no trial had finite numbers; the metrics of the trial report that.
            for number in range(config.updates_per_iteration if len(by_task) else 0):
                key = rng.fold(rng.fold(self.key, self.updates), number)
                batch, places = self._replay(by_task, rng.fold(key, 0))
                found.append(self.gradient_step(batch, rng.fold(rng.fold(key, 1), places), *schedules))
            if self.net.prototypes is not None and len(by_task):
                self._remember(by_task, rng.fold(rng.fold(self.key, self.updates), config.updates_per_iteration))
        self.updates += 1
        means = torch.stack(found).mean(0).tolist() if found else []
        losses = dict(zip((*METRICS, *OTHERS), means, strict=False))
        if losses:
            losses["embedding" if config.by_distance else "kl"] = losses.pop("encoder")
        losses |= {"gamma": at(config.gamma, progress), "replayable": float(len(self.ring))}
        return {f"loss/{name}": value for name, value in losses.items()}

    def _keep(self, trial: list[Rollout]) -> None:
        """Put the episodes of all ranks into the ring, and update the running scales."""
        for number, rollout in enumerate(trial):
            if self.config.norm_obs:
                weight = 1.0 / (self.updates * len(trial) + number + 1)
                self.net.scaling.follow(rollout.step.obs, rollout.mask, weight)
            self.net.scaling.follow_rewards(rollout.outcome.reward, rollout.mask)
        episodes = episodes_of(trial)
        # Several ranks may have played the same task, and a context needs all of its transitions: every rank keeps all.
        parts = ranks.all_gather(to_device(episodes, "cpu")) if ranks.is_distributed() else [episodes]
        with ranks.single_process():
            for part in parts:
                self.ring.add(to_device(part, self.device))
        self.trials += ranks.shard(trial[0].mask.shape[1]).every

    def _schedules(self, progress: float) -> tuple[Tensor, Tensor]:
        """Set the learning rates; return the discount factor and the target entropy."""
        config, size = self.config, self.net.size
        rates = {"encoder": config.encoder_lr, "actor": config.policy_lr, "critic": config.q_lr}
        for name, optimizer in self.optimizers.items():
            optimizer.set_lr(at(rates.get(name, config.alpha_lr), progress))
        if self.net.actions.continuous:
            entropy = at(config.target_entropy, progress) * size
        else:
            entropy = at(config.target_entropy_share, progress) * math.log(size)
        return torch.tensor(at(config.gamma, progress), device=self.device), torch.tensor(entropy, device=self.device)

    @torch.no_grad()
    def _replay(self, by_task: ByTask, key: Key) -> tuple[Batch, Tensor]:
        """Draw tasks, and transitions of this rank's share of them; return those and the tasks' places in the draw."""
        config, net = self.config, self.net
        places = torch.arange(config.task_batch, device=self.device)[ranks.part(config.task_batch)]
        drawn = by_task.tasks(rng.fold(key, 0), config.task_batch)
        tasks = drawn[places]
        context = by_task.recently(tasks, rng.fold(rng.fold(key, 1), places), config.context_size)
        others = by_task.ever(tasks, rng.fold(rng.fold(key, 2), places), config.batch_size)
        batch = Batch(
            net.encoded(context),
            net.scaling.scaled(others.obs, 2),
            net.actions.to_own(others.action),
            others.reward * inverse(net.scaling.reward_size),
            net.scaling.scaled(others.next_obs, 2),
            1.0 - others.terminated.to(others.reward.dtype),
            self._pairs(by_task, drawn, places, rng.fold(key, 3)) if config.by_distance else (),
        )
        return batch, places

    def _pairs(self, by_task: ByTask, tasks: Tensor, places: Tensor, key: Key) -> Pairs:
        """Draw two contexts for each task of all ranks; this rank compares those at its `places` with all others."""
        twice = tasks.repeat(2)
        keys = rng.fold(key, torch.arange(len(twice), device=self.device))
        context = self.net.encoded(by_task.recently(twice, keys, self.config.context_size))
        rows = torch.cat([places, places + len(tasks)])
        same, other = (each.to(context.dtype) for each in weights(twice, rows))
        return Pairs(context, rows, same, other)

    @torch.no_grad()
    def _remember(self, by_task: ByTask, key: Key) -> None:
        """Replace the prototypes by current embeddings of the newest episodes of tasks in the buffer."""
        config, net = self.config, self.net
        assert net.prototypes is not None
        tasks = rng.permutation(rng.fold(key, 0), len(by_task))[: config.prototypes]
        context = by_task.recently(tasks, rng.fold(rng.fold(key, 1), tasks), config.context_size)
        net.prototypes.put(net.infer(net.encoded(context)).mean)

    def _descend(self, batch: Batch, keys: Tensor, gamma: Tensor, target_entropy: Tensor) -> Tensor:
        """Take one gradient step. The keys ``(N,)`` draw latents and actions.

        All losses use the parameters before the step. Returns the values of `METRICS` and `OTHERS`.
        """
        net, config = self.net, self.config
        weight = torch.full_like(batch.reward, 1.0 / (config.task_batch * config.batch_size))
        numbers = torch.arange(config.batch_size, device=self.device)
        next_keys, now_keys = (rng.fold(rng.fold(keys, n)[:, None], numbers) for n in (1, 2))  # (N, M) each
        latent, of_encoder = self._encode(batch, rng.fold(keys, 0))
        given = latent.detach()  # the targets and the actor's loss do not train the encoder
        target = self._targets(batch, given, next_keys, gamma)

        first_layer = net.critic.begin(batch.seen, latent)
        values = net.critic.finish(first_layer, batch.action if net.actions.continuous else None)
        q = net.taken(values, batch.action)
        of_critic = critic_loss(q, target, weight)
        (of_critic + (1.0 if config.by_distance else config.kl_weight) * of_encoder).backward()

        now = choices(net.policy(batch.seen, given), now_keys)
        if net.actions.continuous:
            values = net.critic.finish(first_layer.detach(), now.action, frozen=True)
        else:
            values = values.detach()
        of_actor = actor_loss(values.amin(0), now, net.log_alpha.detach().exp(), weight)
        of_actor.backward()
        entropy = now.entropy().detach()
        temperature_loss(net.log_alpha, entropy, target_entropy, weight).backward()
        mean_q = (q.mean(0) * weight).sum()
        return self._step(torch.stack([of_critic, mean_q, of_encoder, of_actor, (entropy * weight).sum()]).detach())

    def _encode(self, batch: Batch, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latents ``(N, 1, Z)`` and the encoder's own loss: a KL divergence, or a loss on distances.

        If distances train the encoder, the latents carry no gradient.
        """
        config, posterior = self.config, self.net.infer(batch.context)
        if config.by_distance:
            embedding = self.net.infer(batch.pairs.context).mean
            return posterior.mean.detach()[:, None], embedding_loss(config, embedding, batch.pairs)
        latent = posterior.draw(rng.normal(keys, config.latent_size))
        return latent[:, None], posterior.kl().sum() / config.task_batch

    @torch.no_grad()
    def _targets(self, batch: Batch, latent: Tensor, keys: Tensor, gamma: Tensor) -> Tensor:
        """Return the critics' targets ``(N, M)``: the reward plus the discounted soft value of the next observation.

        Truncation at the horizon is not a terminal (Pardo et al. 2018): the value of the next observation still counts.
        """
        net = self.net
        following = choices(net.policy(batch.next_seen, latent), keys)
        values = net.critic_target.finish(net.critic_target.begin(batch.next_seen, latent), following.action)
        value = soft_value(values.amin(0), following, net.log_alpha.exp())
        return td_target(batch.reward, value, batch.following, gamma)

    def _step(self, metrics: Tensor) -> Tensor:
        """Step along the gradients of all ranks and update the target critics; return all metrics."""
        net, config = self.net, self.config
        optimizers = list(self.optimizers.values())
        metrics = ranks.sum_gradients([p for each in optimizers for p in each.parameters], metrics)
        alpha = net.log_alpha.detach().exp()
        norms = {name: each.step(config.max_grad_norm) for name, each in self.optimizers.items()}
        for optimizer in optimizers:
            optimizer.zero_grad()
        polyak(net.critic_target.parameters(), net.critic.parameters(), config.tau)
        return torch.cat([metrics, torch.stack([alpha, norms["encoder"], norms["actor"], norms["critic"]])])

    def state_dict(self) -> dict[str, Tensor]:
        found = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        for optimizer in self.optimizers.values():
            found |= optimizer.state_dict()
        return found | {"updates": torch.tensor(self.updates), "trials": torch.tensor(self.trials)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.net.load_state_dict({k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")})
        for optimizer in self.optimizers.values():
            optimizer.load_state_dict(state)
        self.updates, self.trials = int(state["updates"]), int(state["trials"])
