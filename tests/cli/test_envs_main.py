"""`metarl envs`, and the cards that it and the page of families show."""

from __future__ import annotations

import subprocess
import sys

import pytest
from gymnasium.spaces import Box, Discrete
from registered_families import IDS
from rich.console import Console

from metarl.cli.envs import main, show_all
from metarl.interop.docstrings import parts
from metarl.report.card import card, find, length, short_space

SOME = ["metarl/GridNavi-v0", "metarl/MountainCarContinuous-v0", "metarl/TMaze-v0"]


def test_a_docstring_taken_apart():
    summary, sections = parts(
        """One line;
        and its rest. A second sentence.

        Description:
            What: it is.
              - deeper

        What varies:
            A thing.
        """
    )
    assert summary == "One line; and its rest. A second sentence."
    assert sections == {"Description": "What: it is.\n  - deeper", "What varies": "A thing."}
    assert parts("") == ("", {})


def test_a_card():
    navi = card("metarl/GridNavi-v0")
    assert (
        navi.line
        == "A 5×5 grid with one rewarding cell; search for it in the first episode, go straight to it in the others"
    )
    assert navi.call == "GridNavi(episodes_per_trial=4)" and length(navi.family) == "15 × 4"
    assert next(iter(navi.sections)) == "Description" and "-0.1" in navi.sections["Rewards"]
    assert short_space(Discrete(5)) == "Discrete(5)" and short_space(Box(0, 1, (2, 3))) == "Box(2, 3)"


@pytest.mark.parametrize("name", ["metarl/DarkRoom-v0", "DarkRoom", "darkroom", "DarkRoom-v0"])
def test_names(name):
    assert find(name) == "metarl/DarkRoom-v0"


def test_the_list_when_piped(capsys):
    """One line per family, in which every property can be found."""
    assert main([]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split()[0] == "id"
    lines = [line for line in lines if line.startswith("metarl/")]
    assert [line.split()[0] for line in lines] == IDS
    for id, line in zip(IDS, lines, strict=True):
        each = card(id)
        shown = [length(each.family), short_space(each.family.action_space), ", ".join(each.family.splits), each.line]
        assert all(part in line for part in shown) and line == line.rstrip()


@pytest.mark.parametrize("width", [80, 200])
def test_the_list_on_a_terminal(width):
    console = Console(width=width, force_terminal=True, color_system=None, highlight=False)
    with console.capture() as shown:
        show_all([card(id) for id in SOME], console)
    lines = shown.get().splitlines()
    assert max(map(len, lines)) <= width
    for part in (*SOME, "999 × 2", "Discrete(5)", "train, valid, ood, all"):
        assert any(part in line for line in lines)


def test_a_family(capsys):
    assert main(["BernoulliBandit"]) == 0
    out = capsys.readouterr().out
    for part in (
        "metarl/BernoulliBandit-v0\n",
        "BernoulliBandit(num_arms=5, episodes_per_trial=100)",
        "\nWhat varies\n",
    ):
        assert part in out


@pytest.mark.parametrize("id", IDS)
def test_every_family_has_a_card(id, capsys):
    assert main([id]) == 0
    assert "\nRewards\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "nearest"), [("GridNavy", "'GridNavi'"), ("metarl/GridNavi-v1", "'metarl/GridNavi-v0'")]
)
def test_a_wrong_name(given, nearest, capsys):
    assert main([given]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and f"Did you mean {nearest}?" in err


def test_two_names(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["GridNavi", "DarkRoom"])
    assert capsys.readouterr().err == "metarl envs: 'DarkRoom' is an unexpected argument; see --help.\n"


def test_as_a_program():
    done = subprocess.run([sys.executable, "-m", "metarl", "envs", "TMaze"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("metarl/TMaze-v0\n") and not done.stderr
