"""Heads whose weights are generated from the memory: a hypernetwork for RL² (Beck et al. 2022).

A plain head adds a linear function of the memory to a linear function of the step. Here the memory decides *how* the
step is read: one linear layer maps the memory's output to an embedding e, and a second one maps e to all weights and
biases of both heads, separately for each row. The heads themselves see only the step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarl.learning.nets import Head, mlp

BOUND = 5.0
"""Largest magnitude of a feature of the step that the heads read, in units of a standard deviation or of a range.

The previous action is one of these features, so actions are fed back. With generated weights the memory sets the gain
of this feedback, and with a gain above 1 actions grow exponentially: to 10³⁰ after the 100 steps of a trial in one run.
"""


class HyperHeads(nn.Module):
    """The policy's and the critic's head on the embedded step, with weights generated from the memory's output.

    Initially the generated weights do not depend on the memory and equal those of a plain head: the hypernetwork's
    weights are 0, and its biases are the plain head's initial weights ("Bias-HyperInit" in Beck et al. 2022).
    """

    def __init__(
        self, memory: int, inputs: int, outputs: int, *, hidden: int, size: int, task_size: int, timed: bool = False
    ) -> None:
        """Make heads on `inputs` features of a step, with `hidden` ReLU units (0: linear heads).

        The policy's head has `outputs` outputs, the critic's head has one. `memory` is the size of the memory's output
        and `size` that of its embedding. With a `task_size` above 0 the critic's head also sees the task, through a
        perceptron, and if `timed` also the time, through a linear layer. The weights of these two are not generated.
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

        `output` ``(…, H)`` is the memory's output, `x` ``(…, E)`` the embedded step, `task` ``(B, D)`` the
        standardised task, and `share` ``(…)`` the fraction of the trial that is over.
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
    """A linear layer whose weights are a linear function of an embedding: W(e) x + b(e), with a different e per row.

    With e and x each extended by a 1, an output is Σ c_ki e_k x_i, where c are the parameters. The weights of each row
    are therefore never stored. A layer with as many outputs as inputs multiplies c by all products e_k x_i; one with
    fewer outputs multiplies c by x and then takes the sum weighted by e. In both, rows are the last dimension in
    memory, as in the outputs of the fast GRU.
    """

    def __init__(self, inputs: int, outputs: Sequence[int], gains: Sequence[float], size: int) -> None:
        """Make a layer with groups of `outputs`, each orthogonal with its gain, for embeddings of `size` numbers."""
        super().__init__()
        coefficients = torch.zeros(sum(outputs), size + 1, inputs + 1)  # e and x each end with the constant 1
        for group, gain in zip(coefficients.split(list(outputs)), gains, strict=True):
            group[:, -1, :-1] = nn.init.orthogonal_(torch.empty(len(group), inputs), gain)
        self.coefficients = nn.Parameter(coefficients)

    def forward(self, embedding: Tensor, x: Tensor) -> Tensor:
        """Return outputs ``(…, G)`` for inputs ``(…, F)``; `embedding` ``(K + 1, N)`` comes from `with_one`."""
        inputs, outputs = with_one(x), len(self.coefficients)
        if len(inputs) <= outputs:
            pairs = embedding[:, None] * inputs
            result = self.coefficients.flatten(1) @ pairs.flatten(0, 1)
        else:
            by_embedding = (self.coefficients.flatten(0, 1) @ inputs).unflatten(0, (outputs, -1))
            result = (by_embedding * embedding).sum(1)
        return result.unflatten(1, x.shape[:-1]).movedim(0, -1)


def with_one(x: Tensor) -> Tensor:
    """Move the features of ``x (…, F)`` first, flatten the rest to N rows, and append a constant 1: ``(F + 1, N)``."""
    return F.pad(x.movedim(-1, 0).flatten(1), (0, 0, 0, 1), value=1.0)
