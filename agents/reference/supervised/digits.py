"""Reference agents for `FewShotDigits`: an oracle that knows the labels, and nearest neighbours."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metarl.agents.random import FixedAgent, scripted
from metarl.agents.reference.told import told
from metarl.core import rng
from metarl.core.batch_env import Step
from metarl.core.family import Key, Task
from metarl.core.rollout import Acted, Memory
from metarl.envs.supervised.digits import PIXELS, images


class DigitsOracle(FixedAgent):
    """Knows the classes of the labels, and looks the image up among them: always right."""

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        return told(task)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        image = step.obs[:, None, :PIXELS]
        inverted = memory.inverted[:, None, None]
        known = images(image.device)[memory.classes]  # (B, N, 173, 64)
        shown = torch.where(inverted > 0, 1.0 - image, image)
        distance = (known - shown[:, None]).abs().sum(-1).amin(-1)  # (B, N)
        return scripted(distance.argmin(-1), step), memory


class Pairs(NamedTuple):
    """The T images of a trial so far, in order."""

    image: Tensor  # (B, T, 64)
    label: Tensor  # (B, T) int64; -1 if unknown


class NearestNeighbour(FixedAgent):
    """Answers with the label of the nearest image so far whose label was shown; the first answer is random.

    The distance is between pixels, which needs no training. A label that was never shown is never given, so the first
    instance of a class is always wrong, except for the first image. Accuracy on test: 0.88 of all images, 0.99 of the
    last ten.
    """

    def __init__(self, num_classes: int = 5, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.num_classes = num_classes

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        nothing = torch.zeros(num_tasks, 0, PIXELS, device=self.device)
        return Pairs(nothing, torch.zeros(num_tasks, 0, dtype=torch.int64, device=self.device))

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        image, shown = step.obs[:, :PIXELS], step.obs[:, PIXELS:]
        label = memory.label.clone()
        if label.shape[1]:
            label[:, -1] = torch.where(shown.sum(-1) > 0, shown.argmax(-1), -1)
        distance = (memory.image - image[:, None]).square().sum(-1).masked_fill(label < 0, torch.inf)
        # Add a far neighbour with a random label, which is chosen only if no other label is known.
        guess = rng.integers(key, 1, self.num_classes)
        distances = torch.cat([distance, torch.full_like(guess, 10**6).float()], dim=1)
        answer = torch.cat([label, guess], dim=1).gather(1, distances.argmin(1, keepdim=True))[:, 0]
        every, labels = torch.cat([memory.image, image[:, None]], 1), torch.cat([label, -torch.ones_like(guess)], 1)
        return scripted(answer, step), Pairs(every, labels)
