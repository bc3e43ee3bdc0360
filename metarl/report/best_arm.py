"""The picture of how soon a bandit agent finds the best arm, compared with hand-written players.

Importing this module registers the picture for the bandits of the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from metarl.agents.family_extras import register_picture
from metarl.agents.random import RandomAgent
from metarl.agents.reference.bandit_planners import GittinsBandit
from metarl.agents.reference.bandits import ThompsonBandit
from metarl.agents.reference.other_bandits import DependentBanditBayes, GaussianThompsonBandit, InformativeBanditScript
from metarl.core.family import Task, TaskFamily
from metarl.core.rollout import Agent
from metarl.core.tree import num_rows, take
from metarl.envs.bandits.bernoulli import BernoulliArms, BernoulliBandit
from metarl.envs.bandits.dependent import DependentBandit
from metarl.envs.bandits.gaussian import GaussianArms, GaussianBandit
from metarl.envs.bandits.informative import InformativeArms, InformativeBandit
from metarl.envs.bandits.restless import RestlessBandit, Walk
from metarl.evaluation import stats
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.drawing.colours import colours
from metarl.evaluation.playback import Watched, watch
from metarl.report.figures import title

REFERENCE_TASKS = 300
"""Number of tasks on which learned and hand-written players are compared."""


MAX_GITTINS = 200
"""Most pulls for the Gittins player, whose table grows cubically."""


def arm_worths(task: Task) -> Tensor | None:
    """Return the mean reward of each arm of a bandit ``(tasks, arms)``, or at each pull ``(tasks, arms, pulls)``.

    Returns None for other tasks.
    """
    match task:
        case BernoulliArms() | Walk():
            return task.probs
        case GaussianArms():
            return task.means
        case InformativeArms():
            return torch.nn.functional.one_hot(task.target, InformativeBandit.INFORMATIVE + 1).float()
    return None


def best_arm_share(worths: Tensor, actions: Tensor) -> NDArray[np.float64]:
    """Return 1 where the pulled arm was a best one, else 0: ``(tasks, pulls)``, from `actions` of the same shape."""
    if worths.ndim == 2:
        worths = worths[..., None]
    at = torch.arange(actions.shape[1], device=actions.device) % worths.shape[2]  # each episode repeats them
    worths = worths[..., at]
    pulled = worths.gather(1, actions[:, None])[:, 0]
    return (pulled == worths.amax(1)).double().cpu().numpy()


def references(family: TaskFamily, device: torch.device) -> dict[str, Agent]:
    """Return hand-written players of a bandit, by name; none for other families."""
    pulls = family.episodes_per_trial
    agents: dict[str, Agent] = {}
    match family:
        case BernoulliBandit():
            if pulls <= MAX_GITTINS:
                agents["Gittins index"] = GittinsBandit(family.num_arms, pulls, device)
            agents["Thompson sampling"] = ThompsonBandit(family.num_arms, device)
        case DependentBandit():
            agents["Bayes-optimal in training tasks"] = DependentBanditBayes(family.structure, pulls, device)
            agents["Thompson sampling"] = ThompsonBandit(2, device)
        case GaussianBandit():
            agents["Thompson sampling"] = GaussianThompsonBandit(family.num_arms, family.std, device)
        case InformativeBandit():
            agents["asks the informative arm first"] = InformativeBanditScript(device)
        case RestlessBandit():
            agents["Thompson sampling, as if nothing changed"] = ThompsonBandit(2, device)
        case _:
            return {}
    return agents | {"random": RandomAgent(family, device)}


def best_arm(
    curve: AdaptationCurve, watched: Watched, family: TaskFamily, players: Mapping[str, Agent]
) -> Figure | None:
    """Draw how soon the agent finds a bandit's best arm, next to `players` on the same tasks; None for other families.

    For an agent that adapts in rounds a point is a whole round, and only the random player is shown, since it does
    not depend on experience: the others would need as many pulls as the rounds have.
    """
    tasks = min(REFERENCE_TASKS, num_rows(watched.task))
    worths = arm_worths(take(watched.task, slice(0, tasks)))
    if worths is None:
        return None
    chosen = {curve.agent: watched}
    for name, player in players.items():
        if not curve.rounds or isinstance(player, RandomAgent):
            chosen[name] = watch(player, family, curve.split, tasks)[1]
    shares = {name: _shares(worths, other, curve.rounds) for name, other in chosen.items()}
    if curve.rounds:  # the random player has one round, used for all
        shares = {name: np.broadcast_to(share, (tasks, len(curve.labels))) for name, share in shares.items()}
    return best_arm_figure(curve, shares)


def best_arm_figure(curve: AdaptationCurve, shares: Mapping[str, NDArray[Any]]) -> Figure:
    """Draw the fraction of tasks on which the best arm is pulled, by pull of the trial, or by gradient steps.

    `shares` maps each agent's name to ``(tasks, points)`` in [0, 1]; the first is the learned agent.
    """
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    ax = figure.add_subplot()
    chosen = colours(shares)
    for number, (name, share) in enumerate(shares.items()):
        at = np.arange(share.shape[1]) + (0 if curve.rounds else 1)
        low, high = stats.interval(share[None])
        width = 2.2 if number == 0 else 1.2
        ax.plot(at, share.mean(axis=0), color=chosen[name], linewidth=width, label=name, zorder=3 - number)
        ax.fill_between(at, low, high, color=chosen[name], alpha=0.2, linewidth=0)
    ax.set_ylim(0.0, 1.02)
    ax.set_xlabel("gradient steps" if curve.rounds else "pull of the trial")
    ax.set_ylabel("share of pulls of the best arm")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    ax.grid(alpha=0.3)
    tasks = len(next(iter(shares.values())))
    ax.legend(title=f"mean over the same {tasks} tasks, 95 % interval", title_fontsize="small", fontsize="small")
    ax.set_title(title(curve, "does it find the best arm?"), fontsize="medium")
    return figure


def _shares(worths: Tensor, watched: Watched, rounds: bool) -> NDArray[np.float64]:
    """Shares of best pulls: ``(tasks, pulls)`` of the first row, or ``(tasks, rounds)``, means over a round's pulls."""
    actions = [action[: len(worths)] for action in watched.all_actions()]
    if not rounds:
        return best_arm_share(worths, actions[0][:, 0])
    by_row = [[best_arm_share(worths, row) for row in action.unbind(1)] for action in actions]
    return np.stack([np.stack(rows).mean(axis=(0, 2)) for rows in by_row], axis=1)


def picture(family: TaskFamily, curve: AdaptationCurve, watched: Watched) -> Figure | None:
    """Draw the figure of `best_arm` with the references of the family."""
    return best_arm(curve, watched, family, references(family, watched.device))


for _bandit in (BernoulliBandit, GaussianBandit, DependentBandit, InformativeBandit, RestlessBandit):
    register_picture(_bandit, "best_arm", picture)
