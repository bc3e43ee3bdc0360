"""DPT and DAgger: a policy with a memory, trained on a teacher's action at every step of a trial.

Both are supervised. An iteration plays a trial on each task of a meta-batch and asks a teacher, which may know the
task, for its action at every step. It then minimises the policy's cross-entropy to these actions, given only what the
policy has seen so far. The policy thus learns the teacher's action *averaged over the tasks that are still possible*.

**DPT**, the decision-pretrained transformer (Lee et al. 2023), learns the optimal action of the true task, on trials of
random play or its own. Its policy becomes the posterior over the optimal action, and sampling from it is Thompson
sampling (posterior sampling), although it was never trained on that algorithm. What it has seen is all steps of the
trial so far or, as published for MDPs, those of earlier episodes alone (`context.py`).

**DAgger** (Ross et al. 2011) learns on the states that the student itself visits. With a teacher that does not know the
task, such as the Gittins index, the student copies how the teacher learns: a small network replaces a large or slow
teacher. With a teacher that knows the task there is an imitation gap (Weihs et al. 2021): such a teacher never
explores, so the student cannot learn to explore from it. RL² can continue from a student (``--init_from``).

Algorithm Distillation, in `distillation.py`, also derives from `Imitator`, with training batches of another kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.profiler import record_function

from metarl.agents.imitation.behaviour import OPTIMAL, Mixed, Pair, Teacher, check_teacher, labels_of, make_teacher
from metarl.agents.imitation.config import DAggerConfig, DPTConfig, ImitationConfig, is_run
from metarl.agents.imitation.context import EpisodicNetwork
from metarl.agents.rl2.acting import ActingRL2
from metarl.agents.rl2.network import RL2Network
from metarl.core import rng
from metarl.core.agent import Learned, OwnLoopAgent, at
from metarl.core.batch_env import Step
from metarl.core.distributions import Distribution
from metarl.core.family import Key, Task, TaskFamily
from metarl.core.rollout import Acted, Agent, Memory, Rollout, TrialProtocol, run_trial
from metarl.core.tree import features
from metarl.fast.adam import ClippedAdam
from metarl.learning.acting import check_fixed_size
from metarl.learning.encoder import scale_tasks


class TrainingBatch(NamedTuple):
    """The steps that an iteration learns from: B sequences of T steps."""

    raw: Tensor  # (T, B, F) encoded steps
    obs: Tensor  # (T, B, *O) their observations
    label: Tensor  # (T, B) or (T, B, A) the teacher's actions
    reward: Tensor  # (T, B)
    mask: Tensor  # (T, B) 0 for padding
    metrics: dict[str, float]  # returns of the episodes
    env_steps: int  # environment steps played for the batch


class Imitator(OwnLoopAgent):
    """Base of all imitators; see the module's docstring. Its memory is that of RL²."""

    protocol = TrialProtocol()
    config: ImitationConfig
    teacher: Teacher

    def __init__(
        self, config: ImitationConfig, family: TaskFamily, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        self.config, self.family, self.device = config, family, torch.device(device)
        tasks = features(scale_tasks(family))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = self._network()(config.network(), family, tasks).to(self.device)
        self.optimizer = ClippedAdam(self._trained_parameters(), at(config.lr, 0.0))
        self.key = rng.fold(rng.key(seed, self.device), 1)
        self.updates = 0

    def _network(self) -> type[RL2Network]:
        return RL2Network

    def _trained_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Return the parameters to train: all but the critic's, which only a run of RL² that continues needs."""
        return [(name, each) for name, each in self.net.named_parameters() if not name.startswith("critic.")]

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return self.net.initial(num_tasks, self.device)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        with torch.no_grad():
            policy, memory = self.policy(step, memory)
            action = self.net.actions.to_family(policy.mode() if greedy else policy.sample(key))
            log_prob = policy.log_prob(self.net.actions.to_own(action))
            return Acted(action, log_prob, torch.zeros_like(log_prob)), memory

    def policy(self, step: Step, memory: Memory) -> tuple[Distribution, Memory]:
        """Return the policy for one step ``(B, …)``, and the memory after it."""
        policy, _, memory = self.net.step(step, memory)
        return policy, memory

    def adapt(self, memory: Memory, rollout: Rollout) -> Memory:
        return memory  # the recurrent state has already adapted

    def player(self, key: Key, progress: float) -> Agent:
        """Return the agent that plays the trials of an iteration."""
        raise NotImplementedError

    def label(self, rollout: Rollout, key: Key) -> Tensor:
        """Return the teacher's actions at every step of a trial, ``(T, B)`` or ``(T, B, A)``."""
        return labels_of(rollout, self.teacher, key, greedy=True)

    def training_batch(self, split: str, key: Key, progress: float) -> TrainingBatch:
        """Play a trial on each of `meta_batch_size` tasks of `split`; label every step with the teacher's action."""
        task = self.family.sample_tasks(rng.fold(key, 0), self.config.meta_batch_size, split)
        (rollout,) = run_trial(self.player(rng.fold(key, 1), progress), self.family, task, rng.fold(key, 2))
        labels, mask = self.label(rollout, rng.fold(key, 3)), rollout.mask
        raw, _ = self.net.encoder.raw(rollout.step, self.net.encoder.initial(mask.shape[1]))
        reward = float((rollout.outcome.reward * mask).sum(0).mean())
        returns = {"train/trial_return": reward, "train/return": reward / self.family.episodes_per_trial}
        return TrainingBatch(raw, rollout.step.obs, labels, rollout.outcome.reward, mask, returns, int(mask.sum()))

    def learn(self, split: str, progress: float = 0.0) -> Learned:
        """Do one iteration: make a training batch on tasks of `split`, and minimise the cross-entropy to its labels."""
        config, key = self.config, rng.fold(self.key, self.updates)
        with record_function("metarl/rollout"):
            batch = self.training_batch(split, key, progress)
        raw, mask = batch.raw, batch.mask
        lr = at(config.lr, progress)
        self.optimizer.set_lr(lr)
        epochs = rng.fold(rng.fold(key, 4), torch.arange(config.update_epochs, device=self.device))
        orders = rng.permutation(epochs, config.meta_batch_size)
        found = [
            self._descend(raw[:, rows], batch.label[:, rows], mask[:, rows])
            for order in orders
            for rows in order.tensor_split(config.num_minibatches)
        ]
        if config.norm_obs:
            self.net.encoder.follow(batch.obs, mask, 1.0 / (self.updates + 1))
        self.net.encoder.follow_rewards(batch.reward, mask)
        self.updates += 1
        loss, agreement, grad_norm = torch.stack(found).mean(0).tolist()
        metrics = {"loss/cross_entropy": loss, "loss/agreement": agreement, "loss/grad_norm": grad_norm, "loss/lr": lr}
        return Learned(batch.metrics | metrics, batch.env_steps)

    def _descend(self, raw: Tensor, label: Tensor, mask: Tensor) -> Tensor:
        """Take one step of Adam. Returns the loss, the fraction of steps whose mode is the label, and the norm."""
        self.optimizer.zero_grad()
        loss, policy = self._loss(raw, label, mask)
        loss.backward()
        mode = self.net.actions.to_family(policy.mode())
        same = (mode == label).reshape(*mask.shape, -1).all(-1)
        agreement = (same * mask).sum() / mask.sum()
        grad_norm = self.optimizer.step(self.config.max_grad_norm)
        return torch.stack([loss.detach(), agreement, grad_norm])

    def _loss(self, raw: Tensor, label: Tensor, mask: Tensor) -> tuple[Tensor, Distribution]:
        """Return the mean cross-entropy of the policy to the labels, over all steps without padding, and the policy."""
        output, x, _ = self.net.sequence(raw, None)
        policy, _ = self.net.heads(output, x, None)
        own = self.net.actions.to_own(label)
        own = own.masked_fill(mask.reshape(*mask.shape, *[1] * (own.ndim - 2)) == 0, 0)  # padding may hold no action
        return -(policy.log_prob(own) * mask).sum() / mask.sum(), policy

    @torch.no_grad()
    def memory_features(self, memory: Memory, step: Step) -> Mapping[str, Tensor]:
        return self.net.memory_features(step, memory)

    @torch.no_grad()
    def action_distribution(self, memory: Memory, step: Step) -> Distribution:
        return self.policy(step, memory)[0]

    def acting_module(self, memory: Memory) -> ActingRL2:
        check_fixed_size(self.title, self.config.memory, self.net.memory)
        return ActingRL2(self.net)

    def state_dict(self) -> dict[str, Tensor]:
        net = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        return {**net, **self.optimizer.state_dict(), "updates": torch.tensor(self.updates)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.net.load_state_dict({k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")})
        self.optimizer.load_state_dict(state)
        self.updates = int(state["updates"])


class DPT(Imitator, config=DPTConfig):
    """The decision-pretrained transformer; see the module's docstring."""

    config: DPTConfig

    def __init__(
        self, config: DPTConfig, family: TaskFamily, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        """Make an untrained agent. Raises ValueError for a family without `optimal_action` or Discrete actions."""
        self.teacher = make_teacher(OPTIMAL, family, torch.device(device))
        Mixed(family, rng.key(0))  # raises the ValueError
        super().__init__(config, family, seed, device)

    def _network(self) -> type[RL2Network]:
        return EpisodicNetwork if self.config.context == "episode" else RL2Network

    def player(self, key: Key, progress: float) -> Agent:
        behaviour = self.config.behaviour
        return self if behaviour == "policy" else Mixed(self.family, key, uniform=behaviour == "uniform")

    def label(self, rollout: Rollout, key: Key) -> Tensor:
        return labels_of(rollout, self.teacher, key, greedy=self.config.labels == "greedy")

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state; with ``context: episode`` it is marked, as no other policy reads its memory like this."""
        by_episode = self.config.context == "episode"
        return super().state_dict() | ({"by_episode": torch.tensor(True)} if by_episode else {})


class DAgger(Imitator, config=DAggerConfig):
    """Distillation of a teacher; see the module's docstring."""

    config: DAggerConfig

    def __init__(
        self, config: DAggerConfig, family: TaskFamily, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        """Make an untrained agent. Raises ValueError for a ready-made teacher that the family does not have."""
        if not is_run(config.teacher):  # a student must be able to act without its teacher's run
            self.teacher = make_teacher(config.teacher, family, torch.device(device))
        super().__init__(config, family, seed, device)

    def prepare(self, split: str, load: Callable[[str], Agent]) -> None:
        """Load the teacher if it is a trained agent. Raises ValueError if it does not fit the family."""
        if is_run(self.config.teacher):
            self.teacher = load(self.config.teacher)
            check_teacher(self.config.teacher, self.teacher, self.family)

    def player(self, key: Key, progress: float) -> Agent:
        return Pair(self, self.teacher, at(self.config.beta, progress))

    def label(self, rollout: Rollout, key: Key) -> Tensor:
        return labels_of(rollout, self.teacher, key, greedy=self.config.labels == "greedy")
