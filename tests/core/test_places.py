"""Maps of places: masses are shared out among the cells of a ground, and none is lost."""

from __future__ import annotations

import torch

from metarl.core.beliefs.places import Ground, goal_masses, spread

GROUND = Ground((-1.0, 0.5), 5, 3, 0.5, lambda task: {"goal": task, "mirrored": -task}, 0.1)


def test_points_are_the_middles_of_the_cells_row_by_row():
    points = GROUND.points()
    assert points.shape == (15, 2)
    assert points[0].tolist() == [-1.0, 0.5] and points[1].tolist() == [-0.5, 0.5]
    assert points[5].tolist() == [-1.0, 1.0] and points[-1].tolist() == [1.0, 1.5]


def test_a_place_in_the_middle_of_a_cell_gives_all_to_it():
    points = GROUND.points()
    assert torch.equal(spread(points, points[None], torch.eye(15)[7:8]), torch.eye(15)[7:8])


def test_a_place_between_cells_gives_to_the_four_around_it_by_their_nearness():
    found = spread(GROUND.points(), torch.tensor([[[-0.875, 0.75]]]), torch.ones(1, 1))[0]
    expected = torch.zeros(15)
    expected[[0, 1, 5, 6]] = torch.tensor([0.375, 0.125, 0.375, 0.125])
    torch.testing.assert_close(found, expected)


def test_the_sum_over_the_cells_is_the_sum_of_the_masses():
    """Also of places outside, which the edge takes, and whatever the order of the points."""
    torch.manual_seed(0)
    places, mass = 3.0 * torch.randn(4, 50, 2), torch.rand(4, 50)
    points = GROUND.points()
    found = spread(points, places, mass)
    torch.testing.assert_close(found.sum(1), mass.sum(1))
    order = torch.randperm(15)
    torch.testing.assert_close(spread(points[order], places, mass), found[:, order])


def test_the_mean_of_a_map_is_that_of_the_places():
    torch.manual_seed(0)
    places, mass = torch.rand(2, 30, 2) + torch.tensor([-0.5, 0.5]), torch.rand(2, 30).softmax(1)
    points = GROUND.points()
    torch.testing.assert_close(spread(points, places, mass) @ points, (mass[..., None] * places).sum(1))


def test_every_place_of_a_task_has_a_map():
    tasks = torch.tensor([[0.0, 1.0], [1.0, 0.5], [0.5, 1.5], [0.0, 0.5]])  # two rows of two tasks
    mass = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    found = goal_masses(GROUND, tasks, mass, GROUND.points())
    assert found.keys() == {"goal", "mirrored"}
    assert found["goal"][0].reshape(3, 5)[1, 2] == 0.25 and found["goal"][0].reshape(3, 5)[0, 4] == 0.75
    assert found["goal"][1].reshape(3, 5)[2, 3] == 1.0


def test_a_ground_of_one_row_or_column():
    line = Ground((0.0, 2.0), 4, 1, 1.0, lambda task: {"goal": task})
    assert spread(line.points(), torch.tensor([[[2.0, 7.0]]]), torch.ones(1, 1)).tolist() == [[0.0, 0.0, 1.0, 0.0]]
