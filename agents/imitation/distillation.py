"""Algorithm Distillation (Laskin et al. 2022): a causal transformer trained to predict the actions of a learning agent.

The data are learning histories: everything that an agent did while it learned a task, from its first episode to its
last. The policy predicts each action from what came before it *in all episodes so far*. To predict a learner well, it
must infer how far learning has progressed and what the learner does next. It thus becomes a learner itself, in context
and without gradients, even on tasks that no history covers.

Histories are thinned first: one of every few episodes is kept, with a random offset. The policy then sees faster
learning, and itself learns from fewer episodes than the source agent: the paper's "more data-efficient" algorithm.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarl.agents.imitation.agent import Imitator, TrainingBatch
from metarl.agents.imitation.config import ADConfig
from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.batch_env import Step
from metarl.core.distributions import Distribution
from metarl.core.family import Key, Task, TaskFamily
from metarl.core.rollout import Agent, Memory
from metarl.core.tree import tree_map
from metarl.learning.histories.files import Histories, load_histories
from metarl.learning.histories.history import History


class ADMemory(NamedTuple):
    """The context: the transformer's state, and the steps, which are read again after the oldest are forgotten."""

    state: Any  # the keys and values of the steps in the context
    last_obs: Tensor  # (B, O), or (B, 0) without `transition_input`
    steps: Tensor  # (B, n, F) the encoded steps, n ≤ `context`


class AD(Imitator, config=ADConfig):
    """Algorithm Distillation; see the module's docstring."""

    config: ADConfig

    def __init__(self, config: ADConfig, family: TaskFamily, seed: int = 0, device: torch.device | str = "cpu") -> None:
        super().__init__(config, family, seed, device)
        self.context = config.context or max(2, family.horizon * family.episodes_per_trial)
        self._histories: Histories | None = None

    def prepare(self, split: str, load: Callable[[str], Agent]) -> None:
        """Open the histories. Raises ValueError if there are none or they cover other tasks."""
        self._open(split)

    def _open(self, split: str) -> None:
        if not self.config.histories:
            raise ValueError(
                "AD learns from histories: record some with metarl dataset AGENT --family FAMILY --out DIR, and give "
                "--agent.histories DIR."
            )
        histories = load_histories(Path(self.config.histories).expanduser(), self.family)
        if histories.index.split != split:
            raise ValueError(
                f"The histories in {self.config.histories!r} are on tasks of {histories.index.split!r}, and the run "
                f"trains on {split!r}: set train_split to {histories.index.split}, or give other histories."
            )
        stride, episodes = self.config.stride or 1, histories.index.episodes
        if stride > episodes:
            raise ValueError(
                f"stride must not exceed the {episodes} episodes of a history in {self.config.histories!r}, of which "
                f"it keeps one in {stride}."
            )
        self._histories = histories

    def training_batch(self, split: str, key: Key, progress: float) -> TrainingBatch:
        """Draw histories, thin their episodes, and cut a window of the context's size out of each."""
        history = self._draw(split, rng.fold(key, 0))
        history = thinned(history, rng.fold(key, 1), self._stride())
        encoder, rows = self.net.encoder, history.mask.shape[1]
        raw, _ = encoder.raw(history.inputs(self.family.action_space), encoder.initial(rows))
        index, mask = windows(history, rng.fold(key, 2), self.context)
        raw, obs, label, reward, done = cut((raw, history.obs, history.action, history.reward, history.done), index)
        ended = (done * mask).sum().clamp_min(1.0)
        returns = {"train/return": float((reward * mask).sum() / ended)}
        return TrainingBatch(raw, obs, label, reward, mask, returns, env_steps=0)

    def _draw(self, split: str, key: Key) -> History:
        """Draw `meta_batch_size` histories of one shard with replacement; all histories are equally likely."""
        if self._histories is None:
            self._open(split)
        assert self._histories is not None
        sizes = torch.tensor([float(shard.histories) for shard in self._histories.index.shards], device=key.device)
        shard = self._histories.shard(int(rng.choice(rng.fold(key, 0), sizes / sizes.sum())))
        rows = rng.integers(rng.fold(key, 1), self.config.meta_batch_size, shard.mask.shape[1])
        drawn: History = tree_map(lambda leaf: leaf.to(self.device), shard.rows(rows.cpu()))
        return drawn

    def _stride(self) -> int:
        assert self._histories is not None
        return self.config.stride or max(1, self._histories.index.episodes // self.family.episodes_per_trial)

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        encoder = self.net.encoder
        steps = torch.zeros(num_tasks, 0, encoder.raw_size, device=self.device)
        return ADMemory(self.net.memory.initial(num_tasks, self.device), encoder.initial(num_tasks), steps)

    def policy(self, step: Step, memory: Memory) -> tuple[Distribution, Memory]:
        memory = self._forget(memory)
        raw, last_obs = self.net.encoder.raw(step, memory.last_obs)
        output, x, state = self.net.sequence(raw[None], memory.state)
        policy, _ = self.net.heads(output[0], x[0], None)
        return policy, ADMemory(state, last_obs, torch.cat([memory.steps, raw[:, None]], dim=1))

    def _forget(self, memory: ADMemory) -> ADMemory:
        """Forget the older half of a full context, and read the rest again as a window that begins there.

        This matches training, where the windows of long histories also begin anywhere. On average a step takes the time
        of two, and memory is bounded.
        """
        if memory.steps.shape[1] < self.context:
            return memory
        steps = memory.steps[:, -(self.context // 2) :]
        _, _, state = self.net.sequence(steps.transpose(0, 1), None)
        return memory._replace(state=state, steps=steps)

    @torch.no_grad()
    def memory_features(self, memory: Memory, step: Step) -> Any:
        return super().memory_features(self._forget(memory), step)

    def acting_module(self, memory: Memory) -> Any:
        return LearningAgent.acting_module(self, memory)  # raises an error: there is no acting module


def thinned(history: History, key: Key, stride: int) -> History:
    """Keep every `stride`-th episode of each history, starting with a random one of the first `stride`."""
    first = rng.integers(key, history.mask.shape[1], stride)
    return history.only((history.episode - first) % stride == 0)


def windows(history: History, key: Key, size: int) -> tuple[Tensor, Tensor]:
    """Draw a window of `size` steps from each history: the indices of its steps, int64 ``(T, B)``, and their mask.

    The end of a window is uniform over all steps. A window that would begin before the history is moved to its start,
    so that the beginning, where nothing is known yet, is seen often. T is at most `size`.
    """
    length = history.mask.sum(0).to(torch.int64)
    drawn = (rng.uniform(key, len(length)) * (length + 1)).to(torch.int64)  # 0 … length
    start = torch.minimum(drawn, length) - size
    index = start.clamp_min(0) + torch.arange(min(size, len(history.mask)), device=length.device)[:, None]
    return index.clamp_max(len(history.mask) - 1), (index < length).to(torch.float32)


def cut(tree: Any, index: Tensor) -> Any:
    """Take the steps `index` ``(T, B)`` of each row from every tensor ``(…, B, …)``, time first."""
    rows = torch.arange(index.shape[1], device=index.device)
    return tree_map(lambda leaf: leaf[index, rows], tree)
