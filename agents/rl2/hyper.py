"""Heads whose weights the memory makes: a hypernetwork for RL² (Beck et al. 2022).

A plain head adds what it reads off the memory to what it reads off the step. Here the memory decides *how* the step is
read: a linear layer makes an embedding e of the memory's output, and a second one makes from it all weights and biases
of both heads, each row its own. The heads themselves see only the step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarl.learning.nets import Head, mlp

BOUND = 5.0
"""Largest magnitude of a number of the step that the heads read; it is in units of a standard deviation or a range.

The previous action is such a number, so an action is fed back. With generated weights the feedback is as strong as the
memory makes it, and above 1 it grows like a power: actions of 10³⁰ after the 100 steps of a trial, which was seen.
"""


class HyperHeads(nn.Module):
    """The policy's and the critic's head on the embedded step, with weights that are made from the memory's output.

    At first the weights do not depend on the memory, and are those of a plain head: the hypernetwork's weights are 0,
    and its biases the plain head's initial weights ("Bias-HyperInit" in Beck et al. 2022).
    """

    def __init__(
        self, memory: int, inputs: int, outputs: int, *, hidden: int, size: int, task_size: int, timed: bool = False
    ) -> None:
        """Make heads on `inputs` features of a step, with `hidden` ReLU units or (0) linear ones.

        The policy's head has `outputs` outputs, the critic's one; `memory` is the size of the memory's output, `size`
        that of its embedding. With a `task_size` the critic's head is told the task by a perceptron of its own, and if
        `timed` the time by a linear layer; their weights are not generated.
        """
        super().__init__()
        self.embed = Head(memory, size, gain=1.0)
        widths, gains = ((hidden, hidden), (1.0, 1.0)) if hidden else ((outputs, 1), (0.01, 1.0))
        self.widths = list(widths)
        self.first = GeneratedLayer(inputs, widths, gains, size)
        self.of_task = mlp([task_size, 64, widths[1]], nn.ReLU) if task_size else None
        self.of_time = nn.Linear(1, widths[1], bias=False) if timed else None
        self.policy_last = GeneratedLayer(hidden, (outputs,), (0.01,), size) if hidden else None
        self.critic_last = GeneratedLayer(hidden, (1,), (1.0,), size) if hidden else None

    def forward(
        self, output: Tensor, x: Tensor, task: Tensor | None, share: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the policy's outputs ``(…, A)`` and the standardised value ``(…)``.

        `output` ``(…, H)`` is the memory's, `x` ``(…, E)`` the embedded step, `task` ``(B, D)`` the standardised task,
        `share` ``(…)`` that of the trial that is over.
        """
        embedding, x = with_one(self.embed(output)), x.clamp(-BOUND, BOUND)
        of_policy, of_critic = self.first(embedding, x).split(self.widths, dim=-1)
        if self.of_task is not None and task is not None:
            of_critic = of_critic + self.of_task(task)
        if self.of_time is not None and share is not None:
            of_critic = of_critic + self.of_time(share[..., None])
        if self.policy_last is not None and self.critic_last is not None:
            of_policy = self.policy_last(embedding, F.relu(of_policy))
            of_critic = self.critic_last(embedding, F.relu(of_critic))
        return of_policy, of_critic.squeeze(-1)


class GeneratedLayer(nn.Module):
    """A linear layer whose weights are a linear function of an embedding: W(e) x + b(e), for each row with its own e.

    With e and x each extended by a 1, an output is Σ c_ki e_k x_i, the parameters being c. So nobody has to write down
    the weights of each row: one matrix product does it, with the products e_k x_i of all pairs; or, where a layer has
    fewer outputs than inputs, one with x, whose results are then summed by e. Both work on rows that are last in
    memory, as the outputs of the fast GRU are.
    """

    def __init__(self, inputs: int, outputs: Sequence[int], gains: Sequence[float], size: int) -> None:
        """Make a layer of several groups of `outputs`, each orthogonal with its gain, for embeddings of `size`."""
        super().__init__()
        coefficients = torch.zeros(sum(outputs), size + 1, inputs + 1)  # the last of e, and of x, is the 1
        for group, gain in zip(coefficients.split(list(outputs)), gains, strict=True):
            group[:, -1, :-1] = nn.init.orthogonal_(torch.empty(len(group), inputs), gain)
        self.coefficients = nn.Parameter(coefficients)

    def forward(self, embedding: Tensor, x: Tensor) -> Tensor:
        """Return outputs ``(…, G)`` from inputs ``(…, F)``; `embedding` ``(K + 1, N)`` is what `with_one` made."""
        inputs, outputs = with_one(x), len(self.coefficients)
        if len(inputs) <= outputs:
            pairs = embedding[:, None] * inputs
            result = self.coefficients.flatten(1) @ pairs.flatten(0, 1)
        else:
            by_embedding = (self.coefficients.flatten(0, 1) @ inputs).unflatten(0, (outputs, -1))
            result = (by_embedding * embedding).sum(1)
        return result.unflatten(1, x.shape[:-1]).movedim(0, -1)


def with_one(x: Tensor) -> Tensor:
    """Put the features of ``x (…, F)`` first and all rows last, and append a feature that is 1: ``(F + 1, N)``."""
    return F.pad(x.movedim(-1, 0).flatten(1), (0, 0, 0, 1), value=1.0)
