"""Units and the encoder of steps."""

import math

import gymnasium
import numpy as np
import pytest
import torch

from metarl.core.batch_env import Step
from metarl.core.units import NO_ACTION, ActionUnits, action_size, action_units, no_action
from metarl.learning.encoder import Scaling, StepEncoder
from metarl.learning.nets import keep_outputs

T, B = 9, 5


def box(low: float, high: float, n: int) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(low, high, (n,), np.float32)


def step(obs: list, action: torch.Tensor, reward: float = 0.0, done: float = 0.0) -> Step:
    return Step(torch.tensor([obs]), action, torch.tensor([reward]), torch.tensor([done]))


def encode(encoder: StepEncoder, step: Step) -> torch.Tensor:
    return encoder.raw(step, encoder.initial(step.prev_reward.shape[-1]))[0]


def test_observations_that_are_no_vectors_are_refused():
    with pytest.raises(ValueError, match="must be a Box"):
        Scaling(gymnasium.spaces.Discrete(3))


def knowing(encoder: StepEncoder, size: float = 1.0) -> StepEncoder:
    """An encoder that has seen rewards of this size."""
    encoder.follow_rewards(torch.full((2, 2), size), torch.ones(2, 2))
    return encoder


def test_actions_and_rewards_are_shown_in_their_own_units():
    """The middle of the range, or no action, is 0 and its ends are ±1; a reward is one of the running size."""
    encoder = knowing(StepEncoder(box(0, 1, 1), box(999, 1001, 2)), size=200.0)
    space = box(999, 1001, 2)
    assert encode(encoder, step([0.5], no_action(space, 1))).tolist() == [[0.5, 0.0, 0.0, 0.0, 0.0]]
    shown = encode(encoder, step([0.5], torch.tensor([[999.0, 1000.5]]), reward=-100.0))
    assert shown.tolist() == [[0.5, -1.0, 0.5, -0.5, 0.0]]
    far = encode(encoder, step([0.5], torch.tensor([[999.0, 1000.5]]), reward=1e9))
    assert far[0, 3] == Scaling.LIMIT, "clipped"
    fresh = StepEncoder(box(0, 1, 1), space)
    assert encode(fresh, step([0.5], no_action(space, 1), reward=5.0))[0, 3] == 0.0, "before the first rewards"


@pytest.mark.parametrize(
    ("low", "high", "centre", "unit"),
    [
        (-1, 1, 0, 1),
        (0, 10, 5, 5),
        (-np.inf, np.inf, 0, 1),
        (3, np.inf, 4, 1),
        (-np.inf, 3, 2, 1),
        (-3e38, 3e38, 0, 1),
        (0, 3e38, 1, 1),
        (7, 7, 7, 1),
    ],
)
def test_units_of_actions(low, high, centre, unit):
    assert [float(part) for part in action_units(box(low, high, 1))] == [centre, unit]


@pytest.mark.parametrize(
    ("space", "own", "family"),
    [
        (gymnasium.spaces.Discrete(3, start=-1), [0, 1, 2], [-1, 0, 1]),
        (gymnasium.spaces.Discrete(3), [0, 1, 2], [0, 1, 2]),
        (gymnasium.spaces.MultiDiscrete([3, 2], start=[1, -1]), [[0, 0], [2, 1]], [[1, -1], [3, 0]]),
        (box(999, 1001, 1), [[-1.0], [0.5]], [[999.0], [1000.5]]),
        (box(-np.inf, np.inf, 1), [[-7.0], [0.5]], [[-7.0], [0.5]]),
    ],
    ids=str,
)
def test_actions_of_the_network_and_of_the_family(space, own: list, family: list):
    actions = ActionUnits(space)
    assert actions.to_family(torch.tensor(own)).tolist() == family
    assert actions.to_own(torch.tensor(family)).tolist() == own


def test_the_size_of_rewards_is_that_of_those_that_are_not_0():
    encoder = StepEncoder(box(0, 1, 1), gymnasium.spaces.Discrete(2))
    encoder.follow_rewards(torch.zeros(5, 4), torch.ones(5, 4))
    assert encoder.reward_size == 0 and encoder.reward_batches == 0
    rare = torch.zeros(5, 4)
    rare[2, 1] = -3.0
    encoder.follow_rewards(rare, torch.ones(5, 4))
    assert encoder.reward_size == 3.0
    encoder.follow_rewards(torch.full((5, 4), 1.0), torch.ones(5, 4))
    assert float(encoder.reward_size) == pytest.approx(math.sqrt(5.0)), "a mean over iterations: (9 + 1) / 2"


def test_a_reactive_encoder_shows_the_observation_alone():
    encoder = knowing(StepEncoder(box(0, 1, 2), gymnasium.spaces.Discrete(3), reactive=True))
    one, other = step([0.5, 1.0], torch.tensor([0])), step([0.5, 1.0], torch.tensor([2]), reward=7.0, done=1.0)
    assert encode(encoder, one).tolist() == encode(encoder, other).tolist() == [[0.5, 1.0]]


def test_a_first_action_other_than_0():
    encoder = StepEncoder(box(0, 1, 1), gymnasium.spaces.Discrete(2, start=5))
    for action, shown in ((4, [0, 0]), (5, [1, 0]), (6, [0, 1])):
        assert encode(encoder, step([0.0], torch.tensor([action])))[0, 1:3].tolist() == shown


def test_followed_observations_have_a_pooled_variance_and_are_clipped():
    scaling = Scaling(box(-np.inf, np.inf, 3), follows=True)
    assert scaling.scaled(torch.full((1, 3), 1e6), 1).tolist() == [[0.0, 0.0, 0.0]], "nothing is known yet"
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(50, 20, 3, generator=generator) + shift for shift in (0.0, 6.0, -3.0)]
    for batch in batches:
        batch[..., 2] = 0.3  # never changes in training
    for number, batch in enumerate(batches):
        padded, mask = torch.cat([batch, torch.full((4, 20, 3), 99.0)]), torch.ones(54, 20)
        mask[50:] = 0.0
        scaling.follow(padded, mask, 1.0 / (number + 1))
    every = torch.stack(batches).flatten(0, 2)
    torch.testing.assert_close(scaling.centre[:2], every.mean(0)[:2])
    torch.testing.assert_close(scaling.scale[:2], 1.0 / every.std(0, correction=0)[:2])
    shown = scaling.scaled(torch.tensor([[1e6, -1e6, 500.0]]), 1)
    assert shown.tolist() == [[10.0, -10.0, 0.0]]


def test_a_state_without_a_version_is_of_version_1():
    """It goes on to show what it was trained on: raw actions and rewards, no clipping."""
    space = box(999, 1001, 1)
    encoder = StepEncoder(box(-np.inf, np.inf, 1), space, follows=True)
    old = {name: value for name, value in encoder.state_dict().items() if name in ("centre", "scale")}
    encoder.load_state_dict(old | {"scale": torch.ones(1)})
    shown = encode(encoder, step([500.0], torch.tensor([[1000.5]]), reward=7.0))
    assert shown.tolist() == [[500.0, 1000.5, 7.0, 0.0]] and encoder.number == 1
    encoder.follow_rewards(torch.ones(2, 2), torch.ones(2, 2))
    assert encode(encoder, step([500.0], torch.tensor([[1000.5]]), reward=7.0)).tolist() == shown.tolist()
    again = StepEncoder(box(-np.inf, np.inf, 1), space, follows=True)
    again.load_state_dict(encoder.state_dict())
    assert again.number == 1, "saved again, it is still of version 1"
    new = StepEncoder(box(-np.inf, np.inf, 1), space, follows=True)
    again.load_state_dict(new.state_dict())
    assert again.number == 2


def test_a_corrected_last_layer_keeps_its_outputs():
    layer, x = torch.nn.Linear(4, 1), torch.randn(10, 4)
    before, after = (torch.tensor(3.0), torch.tensor(2.0)), (torch.tensor(-50.0), torch.tensor(17.0))
    said = (layer(x) * before[1] + before[0]).detach()
    keep_outputs([layer.weight], layer.bias, before, after)
    torch.testing.assert_close(layer(x) * after[1] + after[0], said)


def test_no_action_is_the_zero_vector():
    encoder = knowing(StepEncoder(box(0, 1, 2), gymnasium.spaces.Discrete(3)))
    nothing = encode(encoder, step([0.5, 1.0], torch.tensor([NO_ACTION])))
    assert nothing.tolist() == [[0.5, 1.0, 0, 0, 0, 0, 0]]
    first = encode(encoder, step([0.5, 1.0], torch.tensor([0]), reward=2.0, done=1.0))
    assert first.tolist() == [[0.5, 1.0, 1, 0, 0, 2, 1]], "action 0 is not the same as none"


def test_bounded_observations_are_scaled_and_rewards_by_choice():
    encoder = knowing(StepEncoder(box(-4, 8, 2), box(-1, 1, 2), reward_scale=0.5))
    encoded = encode(encoder, step([8.0, 2.0], torch.tensor([[0.25, -1.0]]), reward=3.0))
    assert encoded.tolist() == [[1.0, 0.0, 0.25, -1.0, 1.5, 0.0]]
    unbounded = StepEncoder(box(-np.inf, np.inf, 2), box(-1, 1, 2))
    assert encode(unbounded, step([8.0, 2.0], torch.zeros(1, 2)))[0, :2].tolist() == [8.0, 2.0]


@pytest.mark.parametrize("transition", [False, True])
def test_the_encoder_takes_sequences_and_flattens_observations(transition: bool):
    space = gymnasium.spaces.Box(0, 1, (2, 3), np.float32)
    encoder = StepEncoder(space, gymnasium.spaces.Discrete(4), transition=transition)
    many = Step(torch.rand(T, B, 2, 3), torch.zeros(T, B, dtype=torch.int64), torch.zeros(T, B), torch.zeros(T, B))
    whole, last = encoder.raw(many, encoder.initial(B))
    assert whole.shape == (T, B, encoder.raw_size)
    carried = encoder.initial(B)
    for t in range(T):
        one, carried = encoder.raw(Step(*(part[t] for part in many)), carried)
        assert torch.allclose(one, whole[t], atol=1e-6)
    assert torch.equal(carried, last)


def test_a_transition_shows_the_observation_before():
    encoder = StepEncoder(box(0, 1, 2), gymnasium.spaces.Discrete(2), transition=True)
    first, carried = encoder.raw(step([0.5, 1.0], torch.tensor([NO_ACTION])), encoder.initial(1))
    second, _ = encoder.raw(step([0.25, 0.75], torch.tensor([1])), carried)
    assert sorted(first[0].tolist()) == sorted([0.5, 1.0, 0, 0, 0, 0, 0, 0]), "nothing was before the first"
    assert sorted(second[0].tolist()) == sorted([0.25, 0.75, 0.5, 1.0, 0, 1, 0, 0])


def test_action_size():
    assert action_size(gymnasium.spaces.Discrete(4)) == 4 and action_size(box(-1, 1, 3)) == 3
    assert action_size(gymnasium.spaces.MultiDiscrete([3, 2])) == 5
    for space in (gymnasium.spaces.Box(0, 1, (2, 2)), gymnasium.spaces.MultiDiscrete([[3, 2]])):
        with pytest.raises(ValueError, match="one-dimensional"):
            action_size(space)


def test_each_component_of_an_action_is_one_hot():
    space = gymnasium.spaces.MultiDiscrete([3, 2], start=[1, -1])
    encoder = StepEncoder(box(0, 1, 1), space)
    nothing = no_action(space, 4)
    assert nothing.dtype is torch.int64 and nothing.tolist() == [[0, -2]] * 4
    assert not encode(encoder, step([0.0], nothing[:1]))[0, 1:6].any()
    for action, shown in (([1, -1], [1, 0, 0, 1, 0]), ([3, 0], [0, 0, 1, 0, 1])):
        assert encode(encoder, step([0.0], torch.tensor([action])))[0, 1:6].tolist() == shown
    assert "component" not in encoder.state_dict(), "what follows from the space is no state"
