"""Players that read and write text, by two rules: at random, and UCB1 on the history of a bandit.

A language model is another such function, from the prompt to the answer. The last lines register the players, so that
they can be compared, in this folder by::

    metarl compare pretrained:rl2_bernoulli_bandit_n10 --allow text_players --baselines text_random text_ucb1 ucb1
"""

from __future__ import annotations

import math
import random
import re

import metarl


def actions(prompt: str) -> list[int]:
    """Return the numbers of the actions that a prompt offers in its last line."""
    return [int(number) for number in re.findall(r"\d+", prompt.splitlines()[-1])]


def at_random(prompt: str) -> str:
    """Answer with any action."""
    return str(random.choice(actions(prompt)))


def ucb1(prompt: str) -> str:
    """Answer with an arm that was not pulled yet, or else the best of mean + √(2 ln t / pulls) (Auer et al. 2002)."""
    rewards: dict[int, list[float]] = {arm: [] for arm in actions(prompt)}
    for arm, reward in re.findall(r"action (\d+), reward ([\d.]+)", prompt):
        rewards[int(arm)].append(float(reward))
    pulls = sum(map(len, rewards.values()))

    def index(arm: int) -> float:
        of_arm = rewards[arm]
        return sum(of_arm) / len(of_arm) + math.sqrt(2 * math.log(pulls) / len(of_arm)) if of_arm else math.inf

    return f"I pull arm {max(rewards, key=index)}."


for player in (at_random, ucb1):
    name = "text_random" if player is at_random else "text_ucb1"
    metarl.register_baseline(
        metarl.TaskFamily, name, lambda family, device, player=player: metarl.TextAgent(player, family, device=device)
    )

if __name__ == "__main__":
    family = metarl.make("metarl/BernoulliBandit-v0", episodes_per_trial=20)
    for player in (at_random, ucb1):
        agent = metarl.TextAgent(player, family)
        curve = metarl.evaluate(agent, tasks=50)
        print(f"{agent.title}: {curve.mean()[0]:.2f} with the first pull, {curve.mean()[-1]:.2f} with the last")
        print(f"  {agent.answers}")
