"""Functions of tensors of one row, played as NumPy programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.fast.rows.tape import NotRecorded, Ref, Tape
from metarl.fast.rows.translate import Writer

MOST = 2000
"""Operations of a tape at most: longer ones take long to compile."""


class Program:
    """The program of a tape. Each `copy` has memory of its own, and may be called by one thread at a time.

    A copy takes and gives rows of NumPy values (see `as_row`), in the order of the tape's leaves.
    """

    def __init__(self, tape: Tape) -> None:
        if len(tape.operations) > MOST:
            raise NotRecorded(f"there are {len(tape.operations)} operations, more than {MOST}")
        writer = Writer(tape)
        results = "".join(f"{writer.name(Ref(number))}, " for number in tape.outputs)
        inputs = ", ".join(f"v{number}" for number in tape.inputs)
        boxes = [name for kind, used in writer.boxes.items() for name in (kind, *(f"{kind}_{each}" for each in used))]
        lines = [f"def make({', '.join([*writer.names, *boxes])}):", f"    def program({inputs}):"]
        lines += [f"        {line}" for line in writer.lines]
        lines += [f"        return ({results})", "    return program"]
        self.source = "\n".join(lines)
        self._boxes, self._constants = writer.boxes, writer.names
        space: dict[str, Any] = {}
        exec(compile(self.source, "<row>", "exec"), space)
        self._make = space["make"]

    def copy(self) -> Callable[..., tuple[Any, ...]]:
        boxes: dict[str, Any] = {}
        for kind, used in self._boxes.items():
            box = boxes[kind] = np.zeros(1, kind)
            boxes |= {f"{kind}_{name}": getattr(torch.from_numpy(box), f"{name}_") for name in used}
        program = self._make(**self._constants, **boxes)
        return np.errstate(all="ignore")(program)


def as_row(tensor: Tensor) -> Any:
    """Return a tensor's values as a program has them: one number as NumPy's scalar, several as an array."""
    array = tensor.detach().numpy()
    return array.reshape(-1)[0] if array.size == 1 else array


def as_tensor(value: Any, shape: tuple[int, ...]) -> Tensor:
    """Return a program's value as a tensor."""
    return torch.from_numpy(np.asarray(value).reshape(shape))
