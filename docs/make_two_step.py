"""Make docs/images/two_step.png, who plans in the two-step task: ``python -m docs.make_two_step [RUN …]``.

How often the choice of a round is repeated in the next one, after a rewarded or unrewarded round and a common or
uncommon transition (Daw et al. 2011): of the trained RL² agent (or the given runs of it, joined), of a player that
plans with the exact belief, and of one that repeats what paid. Held-out tasks; bars have a 95 % interval.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import metarl
from metarl.agents.reference.cognitive import TwoStepBayes, TwoStepWinStay
from metarl.core import rng
from metarl.core.rollout import Agent, run_trial
from metarl.envs.cognitive.two_step import TwoStep, stay_probabilities

PICTURE = Path(__file__).parent / "images" / "two_step.png"
TASKS = 2000
GROUPS = 20  # of tasks, for the interval


def signature(agent: Agent, split: str = "test", tasks: int = TASKS) -> Tensor:
    """Stay probabilities of groups of tasks, ``(GROUPS, 2, 2)``: [group, rewarded?, common?]."""
    family = TwoStep()
    (rollout,) = run_trial(agent, family, family.sample_tasks(rng.key(7), tasks, split), rng.key(8))
    groups = torch.arange(tasks).tensor_split(GROUPS)
    parts = [(rollout.step.obs[:, g], rollout.acted.action[:, g], rollout.outcome.reward[:, g]) for g in groups]
    return torch.stack([stay_probabilities(*part) for part in parts])


def effects(stay: Tensor) -> tuple[float, float]:
    """(main effect of the reward, interaction of reward and transition) of ``(2, 2)`` stay probabilities."""
    unrewarded, rewarded = stay
    return float((rewarded - unrewarded).mean()), float(rewarded[1] - rewarded[0] - unrewarded[1] + unrewarded[0]) / 2


def signed(effect: float) -> str:
    """An effect with its sign, which a zero has not."""
    return f"{effect:+.2f}" if abs(effect) >= 0.005 else "0.00"


def draw(ax: Axes, title: str, groups: Tensor) -> None:
    mean = groups.mean(0)
    error = 1.96 * groups.std(0) / len(groups) ** 0.5
    main, interaction = effects(mean)
    for common, label, colour in ((1, "common transition", "#343a40"), (0, "uncommon transition", "#adb5bd")):
        at = np.arange(2) + (0.0 if common else 0.38)
        order = [1, 0]  # rewarded first, as the field draws it
        ax.bar(at, mean[order, common], 0.36, yerr=error[order, common], color=colour, label=label, capsize=3)
    ax.set_xticks([0.19, 1.19], ["rewarded", "unrewarded"])
    ax.set_title(f"{title}\nreward {signed(main)}, reward × transition {signed(interaction)}", fontsize="medium")
    ax.set_ylim(0.0, 1.0)


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN", default=["pretrained:rl2_two_step"])
    given = parser.parse_args(args)
    learned = torch.cat([signature(metarl.load(run)) for run in given.runs])
    seeds = f", {len(given.runs)} seeds" if len(given.runs) > 1 else ""
    panels = {
        f"RL²{seeds}": learned,
        "plans with the exact belief": signature(TwoStepBayes()),
        "repeats what paid (20 % noise)": signature(TwoStepWinStay(noise=0.2)),
    }
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    for number, (title, groups) in enumerate(panels.items(), start=1):
        draw(figure.add_subplot(1, 3, number), title, groups)
    figure.axes[0].set_ylabel("probability of the same choice again")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(PICTURE, dpi=90)
    for title, groups in panels.items():
        print(f"{title}: reward {effects(groups.mean(0))[0]:+.3f}, interaction {effects(groups.mean(0))[1]:+.3f}")


if __name__ == "__main__":
    main()
