"""PAIRED: generate tasks that are solvable, but not yet by the agent (Dennis et al. 2020, algorithm 1).

Three learners play a game. The agent in training is the *protagonist*. An *antagonist*, a second agent with the same
configuration, plays the same tasks. A *generator* makes the tasks. Both agents maximise their returns, and the
generator maximises the regret

    regret(task) = max over the antagonist's episodes of U - mean over the protagonist's episodes of U.

A task that no agent can solve has no regret, and neither has one that both solve, so the generator makes the tasks that
the protagonist can learn next. At an equilibrium the protagonist is a minimax-regret policy (section 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.family import Key, Task
from metarl.core.options import NOT_NEGATIVE, POSITIVE_FINITE, at_least, one_of, option
from metarl.core.rollout import Rollout
from metarl.core.tree import num_rows, where
from metarl.learning.samplers.accel import possible
from metarl.learning.samplers.generator import Generator, Written, check_space
from metarl.learning.samplers.sampler import Proposal, SamplerOptions, TaskSampler, gathered, of_this_rank
from metarl.learning.samplers.scores import Outcome, outcome


@dataclass(frozen=True)
class PAIREDOptions(SamplerOptions):
    """PAIRED (Dennis et al. 2020)."""

    regret: str = option("best", one_of("best", "mean"))
    """Antagonist's return in the regret: best (of its best episode on the task), or mean (over its episodes)."""
    lr: float = option(1e-3, POSITIVE_FINITE)
    """Learning rate of the generator."""
    update_epochs: int = option(4, at_least(1))
    """Steps of the generator on the tasks of an iteration; 1: REINFORCE."""
    clip_coef: float = option(0.2, POSITIVE_FINITE)
    """Clipping range of a task's likelihood ratio in the generator's loss (PPO)."""
    ent_coef: float = option(0.01, NOT_NEGATIVE)
    """Weight of the entropy of the generator's tasks, in nats, relative to regrets scaled to standard deviation 1."""
    max_grad_norm: float = option(1.0, POSITIVE_FINITE)
    """Largest norm of the generator's gradient; a larger gradient is scaled down."""
    hidden_size: int = option(64, at_least(1))
    """Units of the two hidden layers of the generator's network for each field of a task."""
    noise: int = option(16, at_least(1))
    """Dimensions of the noise from which the generator makes a task."""

    def build(self, agent: LearningAgent, split: str) -> PAIRED:
        return PAIRED(self, agent, split)


class Opponents(NamedTuple):
    """The two other learners, which belong to the sampler."""

    antagonist: LearningAgent
    generator: Generator
    seeds: Tensor  # (2,) int64: the seeds of both, which address their randomness


class Game(NamedTuple):
    """The game of one iteration."""

    written: Written  # the generated tasks
    possible: Tensor  # (N,) bool: which of them the family accepts
    tasks: Task  # the tasks played; draws from the split replace the impossible ones
    trial: list[Rollout] | None = None  # the antagonist's trial on this rank's tasks; None before it has played
    antagonist: Outcome | None = None
    regret: Tensor | None = None  # (N,) None before the protagonist has played


class PAIRED(TaskSampler):
    """The sampler; see the module's docstring."""

    def __init__(self, options: PAIREDOptions, agent: LearningAgent, split: str) -> None:
        super().__init__(agent, split)
        check(agent, split)
        self.options = options
        self.opponents: Opponents | None = None  # created with the key of the first iteration
        self.game: Game | None = None
        self.found: dict[str, float] = {}

    def propose(self, key: Key, n: int) -> Proposal:
        """Propose newly generated tasks to the antagonist, and then the same ones to the protagonist."""
        if self.game is not None:
            return Proposal(self.game.tasks)
        if self.opponents is None:
            self.opponents = self._opponents(rng.fold(rng.fold(key, 2), torch.arange(2, device=key.device)))
        antagonist, generator, _ = self.opponents
        written = generator.write(rng.fold(key, 0), n)
        tasks = generator.tasks(written)
        good = possible(self.family, tasks)
        self.game = Game(written, good, where(good, tasks, self.fresh(rng.fold(key, 1), n)))
        return Proposal(self.game.tasks, learn=False, player=antagonist)

    def score(self, proposal: Proposal, trial: list[Rollout]) -> None:
        """Store the antagonist's trial; after the protagonist's, compute the regret of each task."""
        assert self.game is not None, "proposed before"
        played = outcome(self.agent, trial[-1], num_rows(of_this_rank(proposal.tasks)))
        if proposal.player is not None:
            self.game = self.game._replace(trial=trial, antagonist=played)
            return
        its = self.game.antagonist
        assert its is not None, "the antagonist plays first"
        reached = its.best if self.options.regret == "best" else its.mean
        # Tasks that cannot be played cannot be solved, so they have no regret.
        regret = torch.where(self.game.possible, gathered(reached - played.mean), 0.0)
        self.game = self.game._replace(regret=regret)
        self.found = {
            "tasks/regret": float(regret.mean()),
            "tasks/possible": float(self.game.possible.to(torch.float32).mean()),
            "tasks/antagonist_return": float(gathered(its.mean).mean()),
        }

    def learn(self, progress: float) -> dict[str, float]:
        """Update the antagonist like the protagonist, and the generator by the regrets."""
        assert self.opponents is not None and self.game is not None, "proposed before"
        (antagonist, generator, _), (options, game) = self.opponents, (self.options, self.game)
        assert game.trial is not None and game.regret is not None, "scored before"
        losses = antagonist.update(game.trial, progress)
        found = generator.update(
            game.written, game.regret, epochs=options.update_epochs, clip_coef=options.clip_coef,
            ent_coef=options.ent_coef, max_grad_norm=options.max_grad_norm,
        )  # fmt: skip
        self.game = None
        metrics = {f"antagonist/{name.removeprefix('loss/')}": value for name, value in losses.items()}
        return metrics | {f"tasks/generator_{name}": value for name, value in found.items()}

    def metrics(self) -> dict[str, float]:
        return self.found

    def _opponents(self, keys: Key) -> Opponents:
        """Make an untrained antagonist and generator, each from one of the `keys` ``(2,)``."""
        options, seeds = self.options, keys & (2**63 - 1)  # a seed is not negative
        antagonist = self.agent.config.build(self.family, int(seeds[0]), self.device)
        generator = Generator(
            self.family, self.split, int(seeds[1]), self.device,
            noise=options.noise, hidden_size=options.hidden_size, lr=options.lr,
        )  # fmt: skip
        return Opponents(antagonist, generator, seeds)

    def state_dict(self) -> dict[str, Tensor]:
        if self.opponents is None:
            return {}
        antagonist, generator, seeds = self.opponents
        state = {f"antagonist.{name}": value for name, value in antagonist.state_dict().items()}
        return state | {f"generator.{name}": value for name, value in generator.state_dict().items()} | {"seeds": seeds}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.game = None
        if not state:
            self.opponents = None
            return
        seeds = state["seeds"].to(self.device).clone()
        if self.opponents is None or not torch.equal(seeds, self.opponents.seeds):
            self.opponents = self._opponents(seeds)
        antagonist, generator, _ = self.opponents
        antagonist.load_state_dict(_part(state, "antagonist."))
        generator.load_state_dict(_part(state, "generator."))


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def check(agent: LearningAgent, split: str) -> None:
    """Raise ValueError for a family whose tasks cannot be generated, or an agent that cannot be an antagonist."""
    family = agent.family
    if family.num_tasks(split) is not None:
        raise ValueError(
            f"PAIRED makes new tasks, and the split {split!r} of {type(family).__name__} has a fixed list of them: "
            "choose plr as the task sampler."
        )
    check_space(family, "PAIRED")
    if agent.ring is not None:
        raise ValueError(
            f"PAIRED trains a second agent, whose replay buffer is not saved, and {agent.title} has one: choose an "
            "agent that learns from each trial once, such as RL2 or MAML."
        )
