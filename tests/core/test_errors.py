"""Sentences about a user's mistake: they name what is wrong, and so much of what would be right as can be read."""

import numpy as np
import pytest
import torch

import metarl
from metarl.core.checks import possible, within
from metarl.core.errors import NEAREST, SHORT_LIST, UnknownOption, check_counts, unknown, unknown_option, whole_number
from metarl.core.faults.results import described
from metarl.training.config import parsing as config

MANY = [f"family_{letter}" for letter in "abcdefghijkl"]


def test_a_short_list_is_shown_whole():
    sentence = unknown("split", "tset", ["train", "test"])
    assert sentence == "Unknown split: 'tset'. Did you mean 'test'? Known: train, test."
    assert unknown("split", "x", ["train"], where=" of Toy") == "Unknown split of Toy: 'x'. Known: train."
    sentence = unknown("name", "zzz", MANY[:SHORT_LIST], see="all()")
    assert all(name in sentence for name in MANY[:SHORT_LIST]) and "see" not in sentence


@pytest.mark.parametrize("see", ["", "all()"])
def test_of_a_long_list_the_nearest_are_shown_and_their_number(see: str):
    sentence = unknown("name", "family_cc", MANY, see=see)
    assert sentence.startswith("Unknown name: 'family_cc'. Did you mean 'family_c'? Nearest: family_c, ")
    assert sum(f" {name}," in sentence or f" {name}." in sentence for name in MANY) == NEAREST
    assert sentence.endswith("There are 12; see all()." if see else "There are 12.")


def test_what_resembles_no_name_is_not_taken_for_one():
    sentence = unknown("name", "zzz", MANY)
    assert "Did you mean" not in sentence and sentence.endswith("There are 12.")


def test_a_keyword_that_is_not_taken():
    error = unknown_option("Toy", "horizn", ["horizon", "size"])
    assert isinstance(error, TypeError) and isinstance(error, ValueError)
    assert (error.name, error.known) == ("horizn", ("horizon", "size"))
    asked = "Toy got an unexpected keyword argument 'horizn'."
    assert str(error) == f"{asked} Did you mean 'horizon'? It takes: horizon, size."
    assert str(unknown_option("Toy", "horizn", [])) == f"{asked} It takes none."
    many = str(unknown_option("Toy", "family_cc", MANY, "help(Toy)"))
    assert many.endswith("It takes 12; see help(Toy).") and "Nearest: family_c, " in many


@pytest.mark.parametrize(
    ("mistake", "every", "see"),
    [
        (lambda: metarl.make("metarl/GridNavy-v0"), metarl.registered, "metarl.registered()"),
        (lambda: config.find("rl2_gridnavy"), config.presets, "metarl train --help"),
    ],
    ids=["family", "preset"],
)
def test_of_families_and_presets_five_are_named(mistake, every, see: str):
    with pytest.raises(ValueError, match="Did you mean") as caught:
        mistake()
    sentence = str(caught.value)
    assert sentence.endswith(f"There are {len(every())}; see {see}.")
    names = [*metarl.registered(), *config.presets()]
    near = sentence.partition("Nearest: ")[2].partition(". There are")[0].split(", ")
    assert len(near) == NEAREST and set(near) <= set(names) and len(sentence) < 400


def test_an_option_of_a_family_says_where_all_stand():
    with pytest.raises(UnknownOption, match="Did you mean 'episodes_per_trial'"):
        metarl.make("metarl/GridNavi-v0", episode_per_trial=3)


@pytest.mark.parametrize(
    ("check", "sentence"),
    [
        (lambda: whole_number("n", 0), "n must be a whole number of at least 1, got 0."),
        (lambda: whole_number("n", True), "n must be a whole number of at least 1, got True."),
        (lambda: whole_number("n", 1.0), "n must be a whole number of at least 1, got 1.0."),  # type: ignore[arg-type]
        (lambda: check_counts(tasks=3, rounds=0), "rounds must be at least 1, got 0."),
        (lambda: check_counts(rounds=np.int64(-1)), "rounds must be at least 1, got -1."),
        (lambda: within("x", torch.tensor([0.0, 1.5]), 0.0, 1.0), "x must be from 0 to 1, got 1.5."),
        (lambda: possible(torch.tensor([True, False]), "No."), "No."),
    ],
)
def test_checks_say_what_was_given(check, sentence: str):
    with pytest.raises(ValueError) as caught:
        check()
    assert str(caught.value) == sentence


def test_checks_pass_what_is_right():
    assert whole_number("n", 3, least=3) == 3
    check_counts(tasks=1, rounds=None)
    within("x", torch.tensor([0.0, 1.0]), 0.0, 1.0)
    possible(torch.tensor([True]), "No.")


def test_values_are_described():
    assert described(torch.zeros(7, 1, dtype=torch.float64)) == "float64 of shape (7, 1)"
    assert described(np.zeros(3, np.int64)) == "a NumPy array: int64 of shape (3,)"
    assert described([1]) == "a value of list"
