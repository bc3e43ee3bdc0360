"""Images in observations: which parts are images, and the network that reads them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from space_families import Lock, Signals

from metarl.core.batch_env import Step
from metarl.core.family import Part
from metarl.learning import images
from metarl.learning.encoder import Scaling, StepEncoder
from metarl.learning.images import FEATURES, ImageNetwork, check_no_images, is_image, parts_of_space

T, B = 6, 4


def box(low: float, high: float, *shape: int) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(low, high, shape, np.float32)


@pytest.mark.parametrize(("space", "image"), [
    (box(0, 255, 7, 7, 3), True),
    (box(-1, 1, 84, 84, 16), True),
    (box(0, 255, 6, 9, 3), False),
    (box(0, 255, 9, 9, 17), False),
    (box(0, 255, 9, 9), False),
    (box(-np.inf, np.inf, 9, 9, 3), False),
    (gymnasium.spaces.Discrete(3), False),
])  # fmt: skip
def test_which_spaces_are_images(space: gymnasium.Space, image: bool):
    assert is_image(space) is image


@pytest.mark.parametrize(("shape", "last"), [
    ((7, 7, 3), (4, 4)), ((12, 12, 1), (3, 3)), ((9, 40, 3), (3, 10)), ((84, 84, 4), (11, 11)),
])  # fmt: skip
def test_small_images_are_not_pooled_away(shape: tuple[int, ...], last: tuple[int, int]):
    net = ImageNetwork(shape)
    assert net.stages(torch.zeros(2, shape[2], *shape[:2])).shape[2:] == last
    assert net(torch.rand(3, 2, int(np.prod(shape)))).shape == (3, 2, FEATURES)


def test_pixels_become_numbers_from_0_to_1_by_their_bounds():
    scaling = Scaling(box(-10, 30, 7, 7, 1))
    obs = torch.tensor([-10.0, 0.0, 30.0])[:, None, None, None].expand(3, 7, 7, 1)
    assert scaling.scaled(obs, 1)[:, 0].tolist() == [0.0, 0.25, 1.0]


def test_followed_observations_leave_images_alone():
    family = Signals(parts=True)
    scaling = Scaling(family.observation_space, follows=True, parts=family.observation_parts)
    before = scaling.centre.clone(), scaling.scale.clone()
    obs = torch.randn(T, B, 2 + 144) * 50.0 + 100.0
    scaling.follow(obs, torch.ones(T, B), 1.0)
    assert torch.equal(scaling.centre[2:], before[0][2:]) and torch.equal(scaling.scale[2:], before[1][2:])
    seen = obs.flatten(0, 1)[:, :2]
    torch.testing.assert_close(scaling.centre[:2], seen.mean(0))
    torch.testing.assert_close(scaling.scale[:2], 1.0 / seen.std(0, correction=0))
    whole = Scaling(Signals().observation_space, follows=True)  # nothing but an image
    whole.follow(torch.full((T, B, 12, 12, 1), 255.0), torch.ones(T, B), 1.0)
    assert float(whole.scaled(torch.full((1, 12, 12, 1), 255.0), 1).min()) == 1.0


def steps(family: Signals) -> Step:
    obs = torch.rand(T, B, *family.observation_space.shape) * 255.0
    return Step(obs, torch.randint(-1, 4, (T, B)), torch.rand(T, B), torch.zeros(T, B))


@pytest.mark.parametrize("options", [{}, {"transition": True}, {"reactive": True}], ids=str)
@pytest.mark.parametrize("parts", [False, True])
def test_step_by_step_is_as_a_sequence(parts: bool, options: dict[str, Any]):
    family = Signals(parts)
    made = family.observation_space, family.action_space
    encoder = StepEncoder(*made, parts=family.observation_parts, **options)
    assert encoder.images is not None
    many = steps(family)
    raw, _ = encoder.raw(many, encoder.initial(B))
    whole = encoder.images(raw)
    assert whole.shape == (T, B, encoder.output_size)
    last = encoder.initial(B)
    for t in range(T):
        one, last = encoder.raw(Step(*(part[t] for part in many)), last)
        torch.testing.assert_close(encoder.images(one), whole[t], rtol=1e-5, atol=1e-6)


def test_plain_numbers_stay_where_they_are_next_to_an_image():
    family = Signals(parts=True)
    encoder = StepEncoder(family.observation_space, family.action_space, parts=family.observation_parts)
    raw, _ = encoder.raw(steps(family), encoder.initial(B))
    assert encoder.images is not None
    seen = encoder.images(raw)
    assert encoder.output_size == 2 + FEATURES + 8 + 2
    assert torch.equal(seen[..., :2], raw[..., :2]) and torch.equal(seen[..., -10:], raw[..., -10:])


def test_chunks_change_neither_results_nor_gradients(monkeypatch: pytest.MonkeyPatch):
    pixels = torch.rand(7, 144)
    found = []
    for at_once in (images.AT_ONCE, 2 * 144 * images.STAGES[0]):  # all at once, or two at a time
        monkeypatch.setattr(images, "AT_ONCE", at_once)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = ImageNetwork((12, 12, 1))
        features = net(pixels)
        (features * torch.arange(FEATURES)).sum().backward()
        with torch.no_grad():
            torch.testing.assert_close(net(pixels), features)
        found.append([features.detach(), *(parameter.grad for parameter in net.parameters())])
    assert net.at_once == 2
    for whole, part in zip(*found, strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-4, atol=1e-4 * float(whole.abs().max()))


def test_chunks_keep_less_for_the_backward_pass(monkeypatch: pytest.MonkeyPatch):
    kept = []
    for at_once in (images.AT_ONCE, 2 * 144 * images.STAGES[0]):
        monkeypatch.setattr(images, "AT_ONCE", at_once)
        net, saved = ImageNetwork((12, 12, 1)), list[int]()

        def pack(x: torch.Tensor, saved: list[int] = saved) -> torch.Tensor:
            saved.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            net(torch.rand(40, 144))
        kept.append(sum(saved))
    assert kept[1] < 0.1 * kept[0]


def test_parts_have_to_make_up_the_observation():
    parts = (Part("one", box(0, 1, 3)), Part("other", box(0, 1, 2, 2)))
    assert parts_of_space(box(0, 1, 7), parts) == parts
    with pytest.raises(ValueError, match=r"must have 8 numbers, got one 3, other 4\.$"):
        parts_of_space(box(0, 1, 8), parts)


def test_who_reads_no_images_says_so():
    check_no_images(Lock(), "MAML")
    with pytest.raises(
        ValueError, match=r"^MAML needs vector observations, and the observation of Signals is an image .*RL2"
    ):
        check_no_images(Signals(), "MAML")
    with pytest.raises(ValueError, match=r"a part of Signals's observation is an image of shape \(12, 12, 1\)"):
        check_no_images(Signals(parts=True), "MAML")
