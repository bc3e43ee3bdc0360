"""Images in observations: a small residual convolutional network replaces their pixels by features.

An *image* is an observation, or a part of one (`TaskFamily.observation_parts`), of shape (height, width, channels),
with both sides at least `SIDE`, at most `CHANNELS` channels, and finite bounds. The network is that of IMPALA (Espeholt
et al. 2018, figure 3) with one residual block per stage instead of two. Its inputs are pixels between 0 and 1, which
`metarl.learning.encoder.Scaling` scales by the part's bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from metarl.core.family import AnyFamily, Part

SIDE = 7
"""Smallest height and width of an image; smaller arrays are treated as plain numbers."""


CHANNELS = 16
"""Largest number of channels of an image."""


STAGES = (16, 32, 32)
"""Channels of the stages, as in IMPALA."""


SMALLEST = 3
"""A stage halves height and width only if both are at least this afterwards; a stage that does not is the last."""


FEATURES = 128
"""Number of features of an image."""


AT_ONCE = 2**22
"""Largest first-stage output that is computed at once, in numbers (16 MB); larger batches are split into chunks."""


ON_GPU = 16
"""Factor on `AT_ONCE` on a GPU, where small chunks take as long as large ones."""


def is_image(space: gymnasium.Space[Any]) -> bool:
    """Return True if observations of this space, or of this part of one, are images (see the module's docstring)."""
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 3:
        return False
    height, width, channels = space.shape
    bounded = bool((np.abs(space.low) < 1e30).all() and (np.abs(space.high) < 1e30).all())
    return min(height, width) >= SIDE and 1 <= channels <= CHANNELS and bounded


def parts_of_space(space: gymnasium.spaces.Box, parts: Sequence[Part] | None) -> tuple[Part, ...]:
    """Return the parts of an observation, which is a single part if `parts` is None.

    Raises ValueError unless the sizes of the parts add up to the size of the observation.
    """
    found = (Part("observation", space),) if parts is None else tuple(parts)
    size = sum(part.size for part in found)
    if size != int(np.prod(space.shape)):
        sizes = ", ".join(f"{part.name} {part.size}" for part in found)
        raise ValueError(f"The parts of an observation must have {int(np.prod(space.shape))} numbers, got {sizes}.")
    return found


def check_no_images(family: AnyFamily, agent: str) -> None:
    """Raise ValueError if the family has image observations, for which `agent` has no network."""
    for part in parts_of_space(family.observation_space, family.observation_parts):
        if is_image(part.space):
            name = type(family).__name__
            where = f"a part of {name}'s observation" if family.observation_parts else f"the observation of {name}"
            raise ValueError(
                f"{agent} needs vector observations, and {where} is an image of shape {part.space.shape}: choose RL2, "
                "which supports images, or make the family return a flat vector without observation_parts."
            )


class Stage(nn.Module):
    """A convolution, max-pooling that halves height and width if the stage `pools`, and a residual block."""

    def __init__(self, inputs: int, outputs: int, pools: bool) -> None:
        super().__init__()
        self.pools = pools
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.third = nn.Conv2d(outputs, outputs, 3, padding=1)
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="linear")
        nn.init.kaiming_normal_(self.second.weight, nonlinearity="relu")
        nn.init.zeros_(self.third.weight)  # the block starts as the identity and keeps the scale of its input
        for layer in (self.first, self.second, self.third):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.pools:
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        change: Tensor = self.third(F.relu(self.second(F.relu(x))))
        return x + change


class ImageNetwork(nn.Module):
    """A network that maps images of one `shape` (height, width, channels) to `FEATURES` numbers."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        height, width, channels = self.shape = shape
        self.at_once = max(1, AT_ONCE // (height * width * STAGES[0]))
        stages = []
        for outputs in STAGES:
            half = (height + 1) // 2, (width + 1) // 2
            pools = min(half) >= SMALLEST
            stages.append(Stage(channels, outputs, pools))
            channels = outputs
            if not pools:
                break
            height, width = half
        self.stages = nn.Sequential(*stages)
        self.last = nn.Linear(channels * height * width, FEATURES)
        nn.init.orthogonal_(self.last.weight, 2.0**0.5)
        nn.init.zeros_(self.last.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the features ``(…, FEATURES)`` of flattened images ``(…, height * width * channels)``.

        For a batch in several chunks, the backward pass recomputes all intermediate results, to save memory.
        """
        images = pixels.reshape(-1, *self.shape)
        chunks = torch.split(images, self.at_once * (ON_GPU if images.is_cuda else 1))
        if len(chunks) == 1 or not torch.is_grad_enabled():
            found = [self._features(chunk) for chunk in chunks]
        else:
            how: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}  # nothing here is random
            found = [checkpoint(self._features, chunk, **how) for chunk in chunks]
        return (found[0] if len(found) == 1 else torch.cat(found)).reshape(*pixels.shape[:-1], FEATURES)

    def _features(self, images: Tensor) -> Tensor:
        x = F.relu(self.stages(images.permute(0, 3, 1, 2)))  # (N, channels, height, width)
        return F.relu(self.last(x.flatten(1)))


class ImagesInVector(nn.Module):
    """A network for vectors that contain images among other numbers: features replace the pixels of each image.

    `vector` lists the pieces of the vector in order, each a count of plain numbers or the name of a part. A part that
    is listed twice shares one network.
    """

    def __init__(self, parts: Sequence[Part], vector: Sequence[int | str]) -> None:
        super().__init__()
        by_name = {part.name: part for part in parts}
        self.sizes, self.numbers, self.output_size = list[int](), list[int | None](), 0
        images = [part.name for part in parts if is_image(part.space)]
        self.networks = nn.ModuleList(ImageNetwork(by_name[name].space.shape) for name in images)
        for piece in vector:
            size = piece if isinstance(piece, int) else by_name[piece].size
            number = images.index(piece) if isinstance(piece, str) and piece in images else None
            self.sizes.append(size)
            self.numbers.append(number)
            self.output_size += size if number is None else FEATURES

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(…, output_size)`` for vectors ``(…, sum of the pieces' sizes)``."""
        pieces = torch.split(x, self.sizes, dim=-1)
        pairs = zip(pieces, self.numbers, strict=True)
        return torch.cat([piece if n is None else self.networks[n](piece) for piece, n in pairs], dim=-1)
