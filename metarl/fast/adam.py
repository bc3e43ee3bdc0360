"""Adam and the clipping of the gradient in one kernel: the fast twin of `torch.optim.Adam` after `clip_grad_norm_`."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class ClippedAdam:
    """Adam (Kingma & Ba 2015) on some of a module's ``named_parameters()``, with the gradient's norm clipped.

    The arithmetic is torch's fused kernel, which also scales the gradient. On small networks the bookkeeping of
    `torch.optim.Adam` and a separate clipping take as long as a matrix product. Moments are created at the first step,
    so that an agent that only acts has none.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], lr: float, eps: float = 1e-5) -> None:
        self.names, self.parameters = map(list, zip(*named, strict=True))
        self.eps = eps
        device = self.parameters[0].device
        # On a GPU the step is part of a CUDA graph, which reads the learning rate from a tensor.
        self.lr: Tensor | float = torch.tensor(lr, device=device) if device.type != "cpu" else lr
        self.means: list[Tensor] = []
        self.squares: list[Tensor] = []
        self.steps = torch.zeros((), device=device)

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of later steps."""
        if isinstance(self.lr, Tensor):
            self.lr.fill_(lr)
        else:
            self.lr = lr

    def zero_grad(self) -> None:
        """Set the gradients to None."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, max_grad_norm: float = math.inf) -> Tensor:
        """Take a step along the gradients, scaled down to the norm `max_grad_norm`; return their unscaled norm, ()."""
        self._make_moments()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        self.steps.add_(1.0)
        torch._fused_adam_(
            self.parameters, gradients, self.means, self.squares, [], [self.steps] * len(gradients),
            lr=self.lr, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=self.eps, amsgrad=False, maximize=False,
            grad_scale=((norm + 1e-6) / max_grad_norm).clamp_min_(1.0).float(),
        )  # fmt: skip
        return norm

    def _make_moments(self) -> None:
        if not self.means:
            self.means, self.squares = ([torch.zeros_like(p) for p in self.parameters] for _ in range(2))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the moments as ``optimizer.<parameter>.<quantity>`` tensors; empty before the first step."""
        found: dict[str, Tensor] = {}
        for name, mean, square in zip(self.names, self.means, self.squares, strict=False):
            quantities = {"step": self.steps.clone(), "exp_avg": mean, "exp_avg_sq": square}
            found |= {f"optimizer.{name}.{quantity}": value for quantity, value in quantities.items()}
        return found

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load a state from `state_dict`; moments of missing parameters start at zero."""
        for moment in (*self.means, *self.squares, self.steps):
            moment.zero_()  # in place, since a CUDA graph may hold them
        for number, name in enumerate(self.names):
            if f"optimizer.{name}.step" in state:
                self._make_moments()
                self.steps.copy_(state[f"optimizer.{name}.step"])
                self.means[number].copy_(state[f"optimizer.{name}.exp_avg"])
                self.squares[number].copy_(state[f"optimizer.{name}.exp_avg_sq"])
