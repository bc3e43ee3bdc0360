"""Memories: step by step is the sequence, and the CPU's own GRU is torch's."""

import pytest
import torch
from torch import nn

from metarl.core.tree import leaves
from metarl.fast import twins
from metarl.fast.gru import alike, gru, gru_step, grus
from metarl.fast.linear import linear
from metarl.learning import memories

T, B, F, H = 9, 5, 6, 16
REMEMBERING = ["gru", "lstm", "rnn", "transformer"]


def memory(kind: str) -> memories.Memory:
    torch.manual_seed(0)
    made = memories.make_memory(kind, F, H).double()
    with torch.no_grad():  # biases start at zero: they must take part, too
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def inputs(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("kind", memories.MEMORIES)
def test_step_by_step_is_the_sequence(kind: str, grad: bool):
    net, x = memory(kind), inputs(T, B, F)
    whole, last = net.sequence(x, net.initial(B))
    with torch.set_grad_enabled(grad):
        state, outputs = net.initial(B), []
        for t in range(T):
            output, state = net.step(x[t], state)
            outputs.append(output)
    assert whole.shape == (T, B, H) and outputs[0].shape == (B, H)
    torch.testing.assert_close(torch.stack(outputs), whole, rtol=0, atol=1e-12)
    parts, wholes = ([s] if isinstance(s, torch.Tensor) else list(s) for s in (state, last))
    for part, of_whole in zip(parts, wholes, strict=True):
        torch.testing.assert_close(part, of_whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", memories.MEMORIES)
def test_two_chunks_are_the_sequence(kind: str):
    net, x = memory(kind), inputs(T, B, F)
    whole, _ = net.sequence(x, net.initial(B))
    first, state = net.sequence(x[:4], net.initial(B))
    second, _ = net.sequence(x[4:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", REMEMBERING)
def test_a_memory_is_causal_and_remembers(kind: str):
    net, x = memory(kind), inputs(T, B, F).requires_grad_()
    output, _ = net.sequence(x, net.initial(B))
    (gradient,) = torch.autograd.grad(output[4, 2].sum(), x)
    reached = gradient.abs().sum(-1) > 0
    assert bool(reached[:5, 2].all()), "every earlier step matters, the first one too"
    assert not bool(reached[5:].any()), "nothing later does"
    assert not bool(reached[:, [0, 1, 3, 4]].any()), "nor another row"


def test_the_control_has_no_memory():
    net, x = memory("none"), inputs(T, B, F).requires_grad_()
    output, state = net.sequence(x, net.initial(B))
    (gradient,) = torch.autograd.grad(output[4].sum(), x)
    assert state == ()
    assert (gradient.abs().sum((1, 2)) > 0).tolist() == [t == 4 for t in range(T)]


def test_unknown_memory_and_size():
    with pytest.raises(ValueError, match="gru"):
        memories.make_memory("grue", F, H)
    with pytest.raises(ValueError, match="multiple of 8"):
        memories.make_memory("transformer", F, 12)


def torch_gru() -> nn.GRU:
    torch.manual_seed(0)
    return nn.GRU(F, H).double()


def weights(cell: nn.GRU) -> tuple:
    return cell.weight_ih_l0, cell.weight_hh_l0, cell.bias_ih_l0, cell.bias_hh_l0


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("batch", [1, B])
def test_the_gru_equals_torchs_in_values_and_gradients(batch: int, empty: bool):
    cell, x, h, direction = torch_gru(), inputs(T, batch, F), inputs(batch, H), inputs(T, batch, H).flip(0)
    results = []
    for ours in (True, False):
        leaves = [x.clone().requires_grad_(), *([] if empty else [h.clone().requires_grad_()]), *weights(cell)]
        first = None if empty else leaves[1]  # the first step of a trial is computed in another way
        out = gru(leaves[0], first, cell) if ours else cell(leaves[0], None if empty else first[None])[0]
        results.append((out, *torch.autograd.grad((out * direction).sum(), leaves)))
    for ours, torchs in zip(*results, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=0, atol=1e-10)


def test_the_gru_keeps_its_inputs():
    cell, x, h = torch_gru(), inputs(T, B, F), inputs(B, H)
    kept = [tensor.clone() for tensor in (x, h, *weights(cell))]
    gru(x, h, cell).sum().backward()
    with torch.no_grad():
        gru_step(x[0], h, cell)
    assert all(torch.equal(a, b) for a, b in zip(kept, (x, h, *weights(cell))))


def test_the_gradient_of_the_gru_is_that_of_finite_differences():
    """`gradcheck` asks a graph for many backward passes; this one grants one."""
    cell, direction = nn.GRU(3, 5).double(), inputs(4, 2, 5).flip(0)
    leaves = [inputs(4, 2, 3).requires_grad_(), inputs(2, 5).requires_grad_(), *cell.parameters()]

    def loss() -> torch.Tensor:
        return (gru(leaves[0], leaves[1], cell) * direction).sum()

    gradients = torch.autograd.grad(loss(), leaves)
    for leaf, gradient in zip(leaves, gradients, strict=True):
        for place in range(leaf.numel()):
            values = []
            for nudge in (1e-6, -2e-6, 1e-6):  # there, to the other side, and back
                with torch.no_grad():
                    leaf.view(-1)[place] += nudge
                values.append(loss().item())
            assert (values[0] - values[1]) / 2e-6 == pytest.approx(gradient.flatten()[place].item(), abs=1e-8)


@pytest.mark.parametrize("learn", [(True, True, True), (False, True, True), (True, False, False), (False,) * 3])
@pytest.mark.parametrize("empty", [False, True])
def test_grus_side_by_side_equal_torchs_one_by_one(empty: bool, learn: tuple[bool, ...]):
    """In values and gradients, whichever of them learn."""
    cells = [torch_gru().requires_grad_(on) for on in learn]
    for number, cell in enumerate(cells):
        torch.nn.init.normal_(cell.weight_hh_l0, std=0.1 * (number + 1))
    xs = [(inputs(T, B, F) + n).requires_grad_(on) for n, on in enumerate(learn)]
    hs = [None if empty else (inputs(B, H) * n).requires_grad_(on) for n, on in enumerate(learn)]
    leaves = [leaf for group in (xs, hs, *map(weights, cells)) for leaf in group if leaf is not None]
    leaves = [leaf for leaf in leaves if leaf.requires_grad]
    results = []
    for outputs in (
        grus(xs, hs, cells),
        [cell(x, None if h is None else h[None])[0] for x, h, cell in zip(xs, hs, cells, strict=True)],
    ):
        assert [output.requires_grad for output in outputs] == list(learn)
        total = sum((output * direction).sum() for output, direction in zip(outputs, inputs(3, T, B, H), strict=True))
        results.append([*outputs, *(torch.autograd.grad(total, leaves) if leaves else ())])
    for ours, torchs in zip(*results, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=0, atol=1e-10)


def test_grus_of_other_sizes_are_not_alike():
    cells, xs = [nn.GRU(F, H), nn.GRU(F, H + 1)], [torch.zeros(T, B, F)] * 2
    assert alike(xs, [None, None], [cells[0]] * 2)
    assert not alike(xs, [None, None], cells) and not alike(xs, [None, torch.zeros(B, H)], [cells[0]] * 2)


@pytest.mark.parametrize("kind", memories.MEMORIES)
def test_memories_side_by_side_are_each_its_own(kind: str):
    nets, xs = [memory(kind) for _ in range(2)], [inputs(T, B, F), inputs(T, B, F) + 1.0]
    found = memories.sequences(nets, xs, [None, None])
    for net, x, (output, state) in zip(nets, xs, found, strict=True):
        expected, after = net.sequence(x, None)
        for ours, its_own in zip(leaves((output, state)), leaves((expected, after)), strict=True):
            torch.testing.assert_close(ours, its_own, rtol=0, atol=1e-10)


def test_linear_of_any_layout():
    weight, bias = inputs(7, F), inputs(7)
    for x in (inputs(T, B, F), inputs(F, T, B).permute(1, 2, 0), inputs(B, F), inputs(F, B).t()):
        for given in (bias, None):
            expected = torch.nn.functional.linear(x, weight, given)
            torch.testing.assert_close(linear(x, weight, given), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", memories.MEMORIES)
def test_the_plain_memory_is_the_fast_one(kind: str):
    net, x = memory(kind), inputs(T, B, F)
    whole, _ = net.sequence(x, None)
    one, _ = net.step(x[0], net.initial(B))
    with twins.plain():
        plain, _ = net.sequence(x, net.initial(B))
        plain_one, _ = net.step(x[0], net.initial(B))
    torch.testing.assert_close(whole, plain, rtol=0, atol=1e-12)
    torch.testing.assert_close(one, plain_one, rtol=0, atol=1e-12)
