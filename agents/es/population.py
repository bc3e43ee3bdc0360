"""Evolution strategies (Salimans et al. 2017): a population of perturbed policies, and a step from its returns.

For parameters θ with returns F(θ), the objective is the expected return of a search distribution,
J(θ) = E[F(θ + σ ε)] with standard normal ε. Its gradient E[F(θ + σ ε) ε] / σ needs no derivative of F, neither through
the policy's time steps nor through an adaptation. `Population` draws the ε of an iteration, holds the parameters of all
policies as rows of one tensor, and takes an optimiser step along the estimated gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metarl.agents.es.config import EvolutionConfig
from metarl.core import rng
from metarl.core.agent import at, load_optimizer_state, optimizer_state
from metarl.core.family import Key
from metarl.core.units import ALIKE
from metarl.learning import ranks


def antithetic(noise: Tensor) -> Tensor:
    """Return ε followed by -ε: ``(2 H, D)`` for `noise` ``(H, D)``."""
    return torch.cat([noise, -noise])


def centred_ranks(fitness: Tensor) -> Tensor:
    """Return the ranks of `fitness` ``(P,)``, scaled to the range from -0.5 to 0.5; ties share their mean rank.

    Ranks make the step independent of the scale of returns and of the size of outliers (Salimans et al. 2017, section
    2).
    """
    below = (fitness[None] < fitness[:, None]).sum(1).to(fitness.dtype)
    alike = (fitness[None] == fitness[:, None]).sum(1) - 1
    return (below + 0.5 * alike) / max(len(fitness) - 1, 1) - 0.5


def standardised(fitness: Tensor) -> Tensor:
    """Scale `fitness` ``(P,)`` to mean 0 and standard deviation 1; return zeros if all values are equal."""
    std, mean = torch.std_mean(fitness, correction=0)
    return torch.where(std > ALIKE * fitness.square().mean().sqrt(), (fitness - mean) / std, 0.0)


SHAPINGS = {"ranks": centred_ranks, "standardise": standardised}


def es_gradient(fitness: Tensor, noise: Tensor, sigma: Tensor | float) -> Tensor:
    """Estimate the gradient ``(D,)`` of E[F(θ + σ ε)] from antithetic pairs.

    `fitness` ``(2 H,)`` holds F(θ + σ ε) for each ε of `noise` ``(H, D)``, then F(θ - σ ε). The estimate is unbiased.
    For a linear or quadratic F, the gradient equals that of F for every σ.
    """
    plus, minus = fitness.chunk(2)
    return (plus - minus) @ noise / (2.0 * len(noise) * sigma)


class Population:
    """The perturbed copies of a module's parameters in an iteration, and the optimiser of the mean.

    The copies are drawn at the end of the previous update, into fixed tensors, so that a CUDA graph can read them.
    """

    def __init__(self, module: nn.Module, config: EvolutionConfig, key: Key) -> None:
        """Draw the first population; its noise is a function of `key` and the number of updates."""
        self.config, self.key, self.updates = config, key, 0
        self.names, self.parameters = map(list, zip(*module.named_parameters(), strict=True))
        count, device = sum(p.numel() for p in self.parameters), key.device
        self.sigma = torch.tensor(at(config.sigma, 0.0), device=device)
        dtype = self.parameters[0].dtype
        # Buffers of the module, so that they share its device and dtype; not persistent, as they follow from its state.
        for name, rows in (("noise", config.population // 2), ("perturbed", config.population)):
            module.register_buffer(name, torch.empty(rows, count, device=device, dtype=dtype), persistent=False)
        self.module = module
        self.optimizer = self._optimizer()
        self.draw()

    def _optimizer(self) -> torch.optim.Optimizer:
        config, lr = self.config, at(self.config.lr, 0.0)
        if config.optimizer == "adam":
            return torch.optim.Adam(self.parameters, lr, weight_decay=config.weight_decay)
        return torch.optim.SGD(self.parameters, lr, config.momentum, weight_decay=config.weight_decay)

    @property
    def noise(self) -> Tensor:
        """The perturbations ε of the iteration, ``(P / 2, D)``."""
        return self.module.get_buffer("noise")

    @property
    def perturbed_params(self) -> dict[str, Tensor]:
        """The parameters of all policies, ``(P, …)`` by name: θ + σ ε of every ε, then θ - σ ε."""
        parts = self.module.get_buffer("perturbed").split([p.numel() for p in self.parameters], dim=1)
        named = zip(self.names, parts, self.parameters, strict=True)
        return {name: part.unflatten(1, p.shape) for name, part, p in named}

    @torch.no_grad()
    def draw(self) -> None:
        """Draw the population around the mean parameters θ."""
        half, count = self.noise.shape
        keys = rng.fold(rng.fold(self.key, self.updates), torch.arange(half, device=self.key.device))
        self.noise.copy_(rng.normal(keys, count))
        theta = nn.utils.parameters_to_vector(self.parameters)
        self.module.get_buffer("perturbed").copy_(theta + self.sigma * antithetic(self.noise))

    @torch.no_grad()
    def step(self, returns: Tensor, progress: float) -> dict[str, float]:
        """Take a step from the returns ``(N, P)`` of all policies on this rank's tasks, and draw the next population.

        Returns metrics.
        """
        fitness = ranks.mean(returns.mean(0), len(returns))
        gradient = es_gradient(SHAPINGS[self.config.shaping](fitness), self.noise, self.sigma)
        parts = gradient.split([p.numel() for p in self.parameters])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.grad = -part.reshape(parameter.shape)  # optimisers descend
        lr, before = at(self.config.lr, progress), nn.utils.parameters_to_vector(self.parameters).clone()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad()
        theta = nn.utils.parameters_to_vector(self.parameters)
        plus, minus = fitness.chunk(2)
        metrics = {
            "fitness_std": fitness.std(correction=0),
            "pair_std": (plus - minus).square().mean().sqrt() / 2.0,
            "grad_norm": gradient.norm(),
            "step_norm": (theta - before).norm(),
            "weight_norm": theta.norm(),
            "sigma": self.sigma,
        }
        found = {f"loss/{name}": float(value) for name, value in metrics.items()} | {"loss/lr": lr}
        self.updates += 1
        self.sigma.fill_(at(self.config.sigma, progress))
        self.draw()
        return found

    def state_dict(self) -> dict[str, Tensor]:
        """Return the optimiser's state, σ and the number of updates; θ is the module's own."""
        state = optimizer_state(self.optimizer, self.names)
        # σ counts as part of the optimiser's state, so that an agent initialised from these weights uses its own σ.
        return {**state, "optimizer.sigma": self.sigma, "updates": torch.tensor(self.updates)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load a state of `state_dict` and draw its population; load the module's parameters first."""
        load_optimizer_state(self.optimizer, self.names, state)
        if "optimizer.sigma" in state:  # the state of an agent made only for acting has none
            self.sigma.copy_(state["optimizer.sigma"])
        self.updates = int(state["updates"])
        self.draw()
