"""RL² by TorchRL: GRUModule, ClipPPOLoss and its advantage estimates; the settings are those of `metarl.agents.rl2`.

The environment is a batch of rows in plain torch, so that no row costs a Python call. The GRU runs once per minibatch,
before the loss, whose actor and critic are heads on its output. Where an episode ends early the next one begins, and
the trial goes on until it has as many steps as a trial without early endings, so that every step counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import (
    NormalParamExtractor,
    ProbabilisticTensorDictModule,
    ProbabilisticTensorDictSequential,
    TensorDictModule,
    TensorDictSequential,
)
from torch import Tensor, nn
from torchrl.data import Bounded, Categorical, Composite, Unbounded
from torchrl.envs import Compose, EnvBase, ExplorationType, InitTracker, TransformedEnv, set_exploration_type
from torchrl.modules import GRUModule, IndependentNormal, set_recurrent_mode
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value.functional import vec_generalized_advantage_estimate

from benchmarks.works import BANDIT, Work

ARMS = 5


class Trials(EnvBase):
    """All rows of an RL² work; an episode of this environment is a trial, with RL²'s inputs as its observation."""

    def __init__(self, work: Work) -> None:
        super().__init__(batch_size=torch.Size([work.rows]))
        self.work, self.discrete, rows = work, work.family == BANDIT, work.rows
        self.inputs = ARMS + 3 if self.discrete else 6
        self.observation_spec = Composite(observation=Unbounded((rows, self.inputs)), shape=(rows,))
        if self.discrete:
            self.action_spec = Categorical(ARMS, shape=(rows,))
        else:  # clipped by the environment alone
            self.action_spec = Bounded(-10.0, 10.0, shape=(rows, 2))
        self.reward_spec = Unbounded((rows, 1))

    def _set_seed(self, seed: int | None) -> None:
        torch.manual_seed(seed or 0)

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        rows = self.work.rows
        self.task = torch.rand(rows, ARMS) if self.discrete else torch.rand(rows, 2) - 0.5
        self.position, self.time, self.trial_time = torch.zeros(rows, 2), torch.zeros(rows, dtype=torch.int64), 0
        return TensorDict({"observation": torch.zeros(rows, self.inputs)}, batch_size=self.batch_size)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        self.trial_time += 1
        obs, reward = self._pull(tensordict["action"]) if self.discrete else self._move(tensordict["action"])
        done = torch.full((self.work.rows, 1), self.trial_time >= self.work.steps)
        fields = {"observation": obs, "reward": reward[:, None], "done": done, "terminated": done}
        return TensorDict(fields, batch_size=self.batch_size)

    def _pull(self, action: Tensor) -> tuple[Tensor, Tensor]:
        chosen = self.task.gather(1, action[:, None])
        reward = (torch.rand_like(chosen) < chosen).float()
        shown = nn.functional.one_hot(action, ARMS).float()
        return torch.cat([torch.zeros_like(reward), shown, reward, torch.ones_like(reward)], dim=1), reward[:, 0]

    def _move(self, action: Tensor) -> tuple[Tensor, Tensor]:
        self.position = self.position + action.clamp(-0.1, 0.1)
        offset = self.position - self.task
        reward = -offset.norm(dim=-1)
        self.time = self.time + 1
        done = (offset.abs() < 0.01).all(-1) | (self.time >= self.work.horizon)
        self.time = self.time.masked_fill(done, 0)
        self.position = self.position.masked_fill(done[:, None], 0.0)
        scaled = self.position / (0.1 * (self.work.horizon + 1))
        return torch.cat([scaled, action, reward[:, None], done[:, None].float()], dim=1), reward


class Gaussian(nn.Module):
    """Mean and standard deviation in units of the action's range; the latter does not depend on the input."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.linear, self.log_std = nn.Linear(inputs, 2), nn.Parameter(torch.full((2,), 0.6).log())
        self.split = NormalParamExtractor(scale_mapping="exp")

    def forward(self, embed: Tensor, observation: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.linear(torch.cat([embed, observation], dim=-1))
        loc, scale = self.split(torch.cat([mean, self.log_std.expand_as(mean)], dim=-1))
        return 0.1 * loc, 0.1 * scale


class Linear(nn.Linear):
    """A linear head over the memory's output and the input."""

    def forward(self, embed: Tensor, observation: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(torch.cat([embed, observation], dim=-1))


def build(work: Work, threads: int) -> Callable[[], int]:
    """A function that runs one iteration and returns its steps."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    base = Trials(work)
    memory = GRUModule(
        base.inputs,
        work.hidden,
        in_keys=["observation", "recurrent_state", "is_init"],
        out_keys=["embed", ("next", "recurrent_state")],
    )
    env = TransformedEnv(base, Compose(InitTracker(), memory.make_tensordict_primer()))
    keys, width = ["embed", "observation"], work.hidden + base.inputs
    if base.discrete:
        module, outputs, distribution = Linear(width, ARMS), ["logits"], torch.distributions.Categorical
    else:
        module, outputs, distribution = Gaussian(width), ["loc", "scale"], IndependentNormal
    actor = ProbabilisticTensorDictSequential(
        TensorDictModule(module, in_keys=keys, out_keys=outputs),
        ProbabilisticTensorDictModule(outputs, ["action"], distribution_class=distribution, return_log_prob=True),
    )
    critic = TensorDictModule(Linear(width, 1), in_keys=keys, out_keys=["state_value"])
    policy = TensorDictSequential(memory, critic, actor)
    ppo = ClipPPOLoss(actor, critic, clip_epsilon=0.2, entropy_coeff=0.01, critic_coeff=0.5, loss_critic_type="l2")
    parameters = [*memory.parameters(), *ppo.parameters()]
    adam = torch.optim.Adam(parameters, lr=1e-3, eps=1e-5)

    def call() -> int:
        with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
            data = env.rollout(work.steps, policy, break_when_any_done=False)  # (rows, steps)
            estimate(data)
        data = data.exclude("embed", *outputs, ("next", "recurrent_state"))
        for _ in range(work.epochs):
            for rows in torch.randperm(work.rows).tensor_split(work.minibatches):
                part = data[rows]
                with set_recurrent_mode(True):
                    memory(part)
                losses = ppo(part)
                adam.zero_grad(set_to_none=True)
                (losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]).backward()
                nn.utils.clip_grad_norm_(parameters, 0.5)
                adam.step()
        return int(data.numel())

    return call


def estimate(data: TensorDictBase) -> None:
    """Advantages and the critic's targets, from the values that were computed while acting."""
    value, next_ = data["state_value"], data["next"]
    next_value = torch.cat([value[:, 1:], torch.zeros_like(value[:, :1])], dim=1)
    advantage, target = vec_generalized_advantage_estimate(
        0.99, 0.95, value, next_value, next_["reward"], next_["done"], next_["terminated"]
    )
    data["advantage"] = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    data["value_target"] = target
