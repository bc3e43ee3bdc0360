"""What learning agents share: schedules, and the optimiser."""

import pytest
import torch
from torch import nn

from metarl.fast.adam import ClippedAdam


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def give_gradients(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def parameters(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.mark.parametrize("max_norm", [0.1, 100.0])
def test_it_is_torchs_adam_after_torchs_clipping(max_norm: float):
    mine, theirs = net(), net()
    ours, adam = ClippedAdam(mine.named_parameters(), 1e-2), torch.optim.Adam(theirs.parameters(), lr=1e-2, eps=1e-5)
    for seed in range(5):
        ours.set_lr(0.01 / (seed + 1))
        adam.param_groups[0]["lr"] = 0.01 / (seed + 1)
        ours.zero_grad()
        for module in (mine, theirs):
            give_gradients(module, seed)
        expected = nn.utils.clip_grad_norm_(theirs.parameters(), max_norm)
        torch.testing.assert_close(ours.step(max_norm), expected)
        adam.step()
        torch.testing.assert_close(parameters(mine), parameters(theirs), rtol=1e-5, atol=1e-7)


def test_a_parameter_without_a_gradient_stays():
    module = net()
    adam, before = ClippedAdam(module.named_parameters(), 1e-2), module[0].weight.detach().clone()
    give_gradients(module, 0)
    module[0].weight.grad = None
    adam.step(1.0)
    assert torch.equal(before, module[0].weight)


def test_a_state_that_was_put_back_goes_on_as_if_nothing_had_happened():
    whole, parts = net(), net()
    first, second = ClippedAdam(whole.named_parameters(), 1e-2), ClippedAdam(parts.named_parameters(), 1e-2)
    for seed in range(4):
        if seed == 2:
            state = {name: value.clone() for name, value in second.state_dict().items()}
            second = ClippedAdam(parts.named_parameters(), 1e-2)
            second.load_state_dict(state)
        for module, adam in ((whole, first), (parts, second)):
            give_gradients(module, seed)
            adam.step(1.0)
    assert torch.equal(parameters(whole), parameters(parts))


def test_the_state_of_torchs_adam_can_be_put_back():
    """Runs that an earlier version saved hold it parameter by parameter."""
    module, twin = net(), net()
    adam = torch.optim.Adam(module.parameters(), lr=1e-2, eps=1e-5)
    give_gradients(module, 0)
    adam.step()
    names = [name for name, _ in module.named_parameters()]
    states = adam.state_dict()["state"]
    state = {f"optimizer.{names[n]}.{q}": v for n, values in states.items() for q, v in values.items()}
    twin.load_state_dict(module.state_dict())
    ours = ClippedAdam(twin.named_parameters(), 1e-2)
    ours.load_state_dict(state)
    for m in (module, twin):
        give_gradients(m, 1)
    adam.step()
    ours.step(1e9)
    torch.testing.assert_close(parameters(module), parameters(twin), rtol=1e-5, atol=1e-7)


def test_a_state_without_the_optimisers_begins_anew():
    """As a trained agent of the package has none: nothing of what came before may be left."""
    module, twin = net(), net()
    used, fresh = ClippedAdam(module.named_parameters(), 1e-2), ClippedAdam(twin.named_parameters(), 1e-2)
    give_gradients(module, 0)
    used.step(1.0)
    module.load_state_dict(twin.state_dict())
    used.load_state_dict({})
    for m, adam in ((module, used), (twin, fresh)):
        give_gradients(m, 1)
        adam.step(1.0)
    assert torch.equal(parameters(module), parameters(twin))
