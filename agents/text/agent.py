"""An agent that reads and writes text: any function from a prompt to an answer, such as a language model.

Before each action the function reads the family's rules, the trial so far and the current observation, and answers with
an action. The prompt does not reveal the task: like any agent, the function has to find it out by playing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.agents.random import FixedAgent, RandomAgent, scripted
from metarl.agents.text.answers import Action, actions_of
from metarl.agents.text.prompt import Trial, remembered, rule_of, seen, within
from metarl.core.batch_env import Step
from metarl.core.errors import brief, short, whole_number
from metarl.core.family import AnyFamily, Key, Task
from metarl.core.faults.given import check_is_family
from metarl.core.registry import make
from metarl.core.rollout import Acted, Memory, Rollout, TrialProtocol
from metarl.core.tree import Column


class Answers(NamedTuple):
    """Counts of the actions asked for and of invalid answers."""

    asked: int = 0  # actions asked for
    again: int = 0  # of these, asked for twice
    invalid: int = 0  # of these, never answered with an action, so that a random one was played

    def __str__(self) -> str:
        return f"{self.asked:,} actions asked for, {self.again:,} of them twice, {self.invalid:,} invalid"


class TextAgent(FixedAgent):
    """Any function ``str -> str`` as an agent for families with finitely many actions.

    `respond` receives a prompt (`TextAgent.prompt`) for each row and step, and returns an answer. The agent plays the
    first action that the answer names, by number or by name. If the answer names none, `respond` is asked once more,
    with a sentence that says so; if the second answer names none either, a uniformly random action is played. `answers`
    counts these cases over everything that the agent plays. Reasoning in an answer may also name actions, so let
    `respond` return only its conclusion.

    `history` is the largest number of characters for past steps in a prompt; the oldest steps are left out, with a
    note. With `workers` above 1, that many threads call `respond` for several rows at once, for functions that wait for
    another machine; the results are the same. `rule` replaces the family's rules, which are taken from its docstring
    without the sections about tasks and optimum. `actions` are names that replace the family's `action_names`, in the
    order of the actions. `episodes` is the number of episodes of a trial, by default the family's. `greedy` has no
    effect.

    Raises ValueError for continuous actions, for invalid numbers and names, for a trial of more episodes than the agent
    was made for, and for an answer that is not a string.
    """

    costly = True

    def __init__(
        self,
        respond: Callable[[str], str],
        family: AnyFamily | str,
        history: int = 8000,
        workers: int = 1,
        rule: str | None = None,
        actions: Sequence[str] | None = None,
        episodes: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(device)
        if not callable(respond):
            raise ValueError(f"respond must be a function from a prompt to an answer, got {short(respond)}.")
        self.respond, self.family = respond, make(family) if isinstance(family, str) else family
        check_is_family(self.family)
        self.history, self.workers = whole_number("history", history, least=0), whole_number("workers", workers)
        self.actions = actions_of(self.family, actions)
        self.rule = rule_of(self.family) if rule is None else rule
        given = self.family.episodes_per_trial if episodes is None else episodes
        self.episodes = whole_number("episodes", given)
        self.protocol = TrialProtocol(episodes=episodes)
        self.fallback = RandomAgent(self.family, device)
        self.answers = Answers()

    @property
    def title(self) -> str:
        """The agent's name in tables and figures: that of its function."""
        return getattr(self.respond, "__name__", type(self.respond).__name__)

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return Column([Trial()] * num_tasks)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        trials = _after(memory, step.prev_reward, step.prev_done)
        observations = step.obs.cpu()
        # A row whose trial is over is stepped until all trials are over, but its actions are ignored.
        playing = [row for row, trial in enumerate(trials) if trial.episode <= self.episodes]
        if not playing:
            raise ValueError(
                f"The trial has more than the {self.episodes} episodes of this TextAgent: raise its `episodes`."
            )
        prompts = [self.prompt(trials[row], observations[row]) for row in playing]
        chosen = self.fallback.act((), step, key)[0].action.tolist()
        for row, action in zip(playing, self._choose(prompts), strict=True):
            if action is not None:
                chosen[row] = action
            acted = self.actions.show(_plain(chosen[row]))
            place = f"Episode {trials[row].episode}, step {trials[row].step}"
            line = f"{place}: observation {remembered(self.family, observations[row])}, action {acted}"
            trials[row] = trials[row]._replace(acted=line)
        return scripted(torch.tensor(chosen, device=self.device), step), Column(trials)

    def prompt(self, trial: Trial, obs: Tensor) -> str:
        """Return the prompt before an action: rules, history, and the observation ``(*O,)`` of one row."""
        horizon, several = self.family.horizon, f"{self.episodes} episodes, each"
        length = f"{several if self.episodes > 1 else '1 episode'} of {horizon} step{'s'[: horizon != 1]} at most"
        history = within(trial.lines, self.history) or "Nothing yet."
        return (
            f"You play {brief(repr(self.family), 400)} for {length}. The task stays the same throughout, and you are "
            "not told which it is: find out by playing. Collect as much reward as you can, over all steps together."
            f"\n\n{self.rule}\n\nHistory:\n{history}\n\n"
            f"Now: episode {trial.episode} of {self.episodes}, step {trial.step} of {horizon}, "
            f"observation {seen(self.family, obs)}\n{self.actions.request}"
        )

    def adapt(self, memory: Memory, rollout: Rollout) -> Memory:
        """Record the end of a round. The prompts of the next round still contain its history."""
        rows = torch.arange(rollout.mask.shape[1], device=rollout.mask.device)
        last = rollout.mask.sum(0).to(torch.int64) - 1
        trials = _after(memory, rollout.outcome.reward[last, rows], torch.ones_like(rollout.mask[0]))
        return Column([Trial((*trial.lines, "A new round begins, on the same task.")) for trial in trials])

    def _choose(self, prompts: Sequence[str]) -> list[Action | None]:
        """Return the actions that the answers name, in the order of the prompts; None for an answer without one."""
        with ThreadPoolExecutor(self.workers) as pool:
            found = list(pool.map(self._ask, prompts) if self.workers > 1 else map(self._ask, prompts))
        asked, again, invalid = self.answers
        again += sum(tries > 1 for _, tries in found)
        invalid += sum(action is None for action, _ in found)
        self.answers = Answers(asked + len(found), again, invalid)
        return [action for action, _ in found]

    def _ask(self, prompt: str) -> tuple[Action | None, int]:
        """Return the action that an answer names, if any, and the number of questions asked."""
        answer = self._answer(prompt)
        action = self.actions.read(answer)
        if action is not None:
            return action, 1
        wrong = f"Your answer was {short(answer, 200)}, which names no action."
        return self.actions.read(self._answer(f"{prompt}\n\n{wrong} {self.actions.request}")), 2

    def _answer(self, prompt: str) -> str:
        answer = self.respond(prompt)
        if not isinstance(answer, str):
            raise ValueError(f"respond must return a string, got {short(answer)}.")
        return answer


def _after(memory: Column, reward: Tensor, done: Tensor) -> list[Trial]:
    """Add the results ``(B,)`` of their last actions to the rows' trials; trials without an action do not change."""
    results = zip(memory, reward.tolist(), done.tolist(), strict=True)
    return [trial.after(reward, done > 0.5) if trial.acted else trial for trial, reward, done in results]


def _plain(action: int | list[int]) -> Action:
    return tuple(action) if isinstance(action, list) else action
