"""Few-shot classification of digits, with labels permuted in every trial."""

from __future__ import annotations

import functools
import itertools
from typing import ClassVar, NamedTuple

import gymnasium
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from metarl.core import rng
from metarl.core.checks import possible, within
from metarl.core.errors import whole_number
from metarl.core.family import Key, Sketch, TaskFamily
from metarl.envs.drawing.sheet import BAD, GOOD, Sheet, pixels

SIZE = 8  # pixels of an image's side


PIXELS = SIZE * SIZE


TURNS = 4  # rotations by 0, 90, 180 and 270 degrees


SHOWN = 10  # instances of each class in an episode


INSTANCES = 173
"""Images per digit: the largest prime available for all, so that multiples of a number are distinct images."""


DIGITS = {"train": (0, 1, 2, 6, 8, 9), "valid": (4, 5), "test": (3, 7), "ood": (3, 7)}
"""The digits whose classes, all four rotations of each, belong to a split."""


CLASSES = 10 * TURNS
"""Class 4 d + r is the digit d, rotated by r · 90° anticlockwise."""


class Characters(NamedTuple):
    """The classes of a trial in the order of their labels."""

    classes: Tensor  # (B, N) int64, 0 … 39: four times the digit, plus its quarter turns
    inverted: Tensor  # (B,) int64: 1 if light and dark are inverted


class Deck(NamedTuple):
    """The images of an episode in their order."""

    instance: Tensor  # (B, H) int64, 0 … 172: which image of its digit
    label: Tensor  # (B, H) int64, 0 … N - 1
    time: Tensor  # (B,) int64: answered images
    answer: Tensor  # (B,) int64: the last answer; -1 before the first


class FewShotDigits(TaskFamily[Characters, Deck]):
    """Handwritten digits in some rotation, with labels reassigned in every trial; learn the assignment.

    Description:
        At every step an image is shown, and the action is its label. The next observation shows the correct label.
        Labels are assigned to classes at random for each trial, so the label of a class can only be guessed at its
        first instance, and the agent must remember what was shown with each label. An episode shows ten instances of
        each class in random order. A trial is one episode by default, since an episode already contains all that can be
        learned; further episodes of a trial keep the classes and their labels, and show other images.

    What varies:
        The N classes and the label of each: `Characters`. A class is one of ten digits in one of four rotations, 40 in
        all.

    Splits:
        By digit: all rotations of a digit are in the same split, so the test digits never occur in training, in any
        rotation.

        - `train`: the 24 classes of the digits 0, 1, 2, 6, 8 and 9.
        - `valid`: the 8 classes of the digits 4 and 5.
        - `test`: the 8 classes of the digits 3 and 7.
        - `ood`: those of `test` with light and dark inverted.

        Look-alikes: 0, 1 and 8 look nearly the same upside down, and an upside-down 6 looks like a 9. All of these are
        in `train`, and a task never contains both classes of such a pair. An upside-down 2 also resembles a 2, and an
        upside-down 5 a 5, but less so: among 90 images of every class, the nearest neighbour of a 2 is upside down in 1
        of 20 cases, of a 5 in 1 of 45, of a 1 in 1 of 8.

    Actions:
        ========  =====================
        action    meaning
        ========  =====================
        0 … N-1   the label of the image
        ========  =====================

    Observations:
        ===========  ===============================================  ======  ====
        index        meaning                                          range   unit
        ===========  ===============================================  ======  ====
        0 … 63       the image, row by row from the top; 0: no ink    [0, 1]  none
        64 … 63 + N  the label of the previous image, one-hot; zeros  {0, 1}  none
                     at the first step
        ===========  ===============================================  ======  ====

        After the last image, zeros take the place of the image.

    Rewards:
        1 for the correct label, otherwise 0.

    Endings:
        Never terminated; truncated after 10 · N images.

    Optimum:
        Known task: 10 · N. Random: 10, which is 1 / N per image. A player that does not know the labels but recognises
        every class can only guess the label of a new class among those not shown yet. The guess is right in 1 / N of
        the cases for the first class and always for the last: 0.457 of all first instances with five classes, 47.28 of
        50 in total.

    Differs from the source:
        ======  ===================================  ================================
        what    here                                 there
        ======  ===================================  ================================
        images  8 × 8, ten digits in four rotations  20 × 20, Omniglot's 1623
                                                     characters in four rotations
        reward  1 for the correct label              none: cross-entropy of the label
        ======  ===================================  ================================

    Source:
        Santoro et al. 2016, "Meta-learning with memory-augmented neural networks", section 4.1. The images are those of
        Alpaydin & Kaynak 1998, "Optical recognition of handwritten digits", 173 of each digit, as scikit-learn ships
        them: ``pip install -c constraints.txt -e '.[digits]'``.

    Version history:
        v0: first version.
    """

    noisy = False
    shows_task = True  # the first observation is an image of one of its classes
    valid_apart: ClassVar[bool] = True

    def __init__(self, num_classes: int = 5, episodes_per_trial: int = 1) -> None:
        self.num_classes = whole_number("num_classes", num_classes, least=2)
        most = min(len(_kinds(split)) for split in DIGITS)
        if num_classes > most:
            raise ValueError(f"num_classes must be at most {most}, as a split has no more, got {num_classes}.")
        self.episodes_per_trial = whole_number("episodes_per_trial", episodes_per_trial)
        self.horizon = SHOWN * num_classes
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (PIXELS + num_classes,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(num_classes)
        images(torch.device("cpu"))  # raises now if they are not installed

    def draw_tasks(self, keys: Key, split: str) -> Characters:
        kinds = torch.tensor(_kinds(split), device=keys.device)  # (kinds, 2)
        chosen = rng.permutation(rng.fold(keys, 0), len(kinds))[:, : self.num_classes]
        which = rng.integers(rng.fold(keys, 1), self.num_classes, 2)
        classes = kinds[chosen].gather(-1, which[..., None])[..., 0]
        return Characters(classes, torch.full_like(keys, int(split == "ood")))

    def check_task(self, task: Characters) -> None:
        within("Characters.classes", task.classes, 0, CLASSES - 1)
        within("Characters.inverted", task.inverted, 0, 1)
        different = task.classes.sort(-1).values.diff(dim=-1) > 0
        possible(different, "Characters.classes must be different classes.")

    def reset(self, task: Characters, key: Key) -> Deck:
        n, time = self.num_classes, torch.zeros_like(key)
        order = rng.permutation(rng.fold(key, 0), self.horizon)  # (B, H)
        label, number = order // SHOWN, order % SHOWN
        start = rng.integers(rng.fold(key, 1), n, INSTANCES).gather(1, label)
        stride = 1 + rng.integers(rng.fold(key, 2), n, INSTANCES - 1).gather(1, label)
        return Deck((start + stride * number) % INSTANCES, label, time, time - 1)

    def observe(self, task: Characters, state: Deck) -> Tensor:
        image, label = self._image(task, state, state.time), self._label(state, state.time - 1)
        labels = torch.arange(self.num_classes, device=label.device)
        last = (label[:, None] == labels) & (state.time > 0)[:, None]
        return torch.cat([image * (state.time < self.horizon)[:, None], last.to(torch.float32)], dim=-1)

    def step(self, task: Characters, state: Deck, action: Tensor, key: Key) -> tuple[Deck, Tensor, Tensor]:
        right = action == self.target(task, state)
        after = Deck(state.instance, state.label, state.time + 1, action)
        return after, right.to(torch.float32), torch.zeros_like(right)

    def target(self, task: Characters, state: Deck) -> Tensor:
        return self._label(state, state.time)

    def oracle(self, task: Characters) -> Tensor:
        return torch.full((len(task.classes),), float(self.horizon), device=task.classes.device)

    def random_return(self, task: Characters) -> Tensor:
        return torch.full((len(task.classes),), float(SHOWN), device=task.classes.device)

    def _label(self, state: Deck, time: Tensor) -> Tensor:
        """Return the label of the image at `time` (B,), or of the nearest existing one."""
        return state.label.gather(1, time.clamp(0, self.horizon - 1)[:, None])[:, 0]

    def _image(self, task: Characters, state: Deck, time: Tensor) -> Tensor:
        """Return the image at `time` (B,), or the nearest existing one: float32 ``(B, 64)``."""
        at = time.clamp(0, self.horizon - 1)[:, None]
        drawn = task.classes.gather(1, state.label.gather(1, at))[:, 0]
        image = images(drawn.device)[drawn, state.instance.gather(1, at)[:, 0]]
        inverted = task.inverted[:, None].to(torch.float32)
        return inverted + (1.0 - 2.0 * inverted) * image

    def sketch(self, task: Characters, episodes: int = 1) -> Sketch[Deck]:
        """Draw a row per label with its images in order, framed blue if they were classified correctly."""
        return _Album(self, task)


@functools.cache
def images(device: torch.device) -> Tensor:
    """Return the images by class and instance: float32 ``(40, 173, 64)`` in [0, 1].

    Raises ValueError if scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ValueError("scikit-learn is needed and not installed: pip install 'metarl[digits]'.") from error
    data = load_digits()
    upright = [data.images[data.target == digit][:INSTANCES] / 16.0 for digit in range(10)]
    turned = [np.rot90(some, turns, axes=(1, 2)) for some, turns in itertools.product(upright, range(TURNS))]
    return torch.as_tensor(np.stack(turned).reshape(CLASSES, INSTANCES, PIXELS), dtype=torch.float32, device=device)


@functools.cache
def _kinds(split: str) -> tuple[tuple[int, int], ...]:
    """Return the classes of a split by look-alikes, of which a task has one: pairs, or twice the same class."""
    found = set()
    for digit, turns in itertools.product(DIGITS[split], range(TURNS)):
        mine, upside_down = TURNS * digit + turns, (turns + 2) % TURNS
        other = {0: 0, 1: 1, 8: 8, 6: 9, 9: 6}.get(digit)
        alike = mine if other is None else TURNS * other + upside_down
        found.add((min(mine, alike), max(mine, alike)))
    return tuple(sorted(found))


class _Album(Sketch[Deck]):
    """The images of an episode, sorted by label; the next episode begins a new page."""

    SIDE, LEFT, TOP = 36, 90, 28  # pixels

    def __init__(self, family: FewShotDigits, task: Characters) -> None:
        self.family, self.task = family, task
        rows = family.num_classes
        self.sheet = Sheet(self.LEFT + self.SIDE * SHOWN + 60, self.TOP + self.SIDE * rows + 8)
        for label, drawn in enumerate(task.classes[0].tolist()):
            text = f"{label}: {drawn // TURNS} at {90 * (drawn % TURNS)}°"
            self.sheet.ground.text((8, self.TOP + self.SIDE * label + 10), text, fill="black", font_size=13)
        self._begin()

    def _begin(self) -> None:
        self.sheet.clear()
        self.counts, self.right = [0] * self.family.num_classes, 0

    def add(self, state: Deck, first: bool = False) -> None:
        if first:
            self._begin()
            return
        time = state.time - 1
        image = self.family._image(self.task, state, time)[0].reshape(SIZE, SIZE)
        label, answer = int(self.family._label(state, time)[0]), int(state.answer[0])
        shown = Image.fromarray((255 * (1.0 - image)).to(torch.uint8).numpy()).resize((self.SIDE - 8,) * 2, 0)
        x, y = self.LEFT + self.SIDE * self.counts[label], self.TOP + self.SIDE * label
        self.sheet.marks.paste(shown.convert("RGBA"), (x + 4, y + 4))
        colour = GOOD if answer == label else BAD
        self.sheet.pen.rectangle((x + 1, y + 1, x + self.SIDE - 3, y + self.SIDE - 3), outline=colour, width=2)
        self.counts[label] += 1
        self.right += answer == label

    def image(self) -> np.ndarray:
        image, draw = self.sheet.with_marks()
        said = f"{self.right} of {sum(self.counts)} named right, in the order of their coming"
        draw.text((8, 6), said, fill="black", font_size=14)
        return pixels(image)
