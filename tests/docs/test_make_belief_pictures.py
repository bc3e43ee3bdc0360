"""The site's pictures of beliefs: they are there, and the agent that has a belief plays as soon as it ships."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

import metarl
from docs import make_belief_pictures


@pytest.mark.parametrize("name", sorted(make_belief_pictures.SCENES))
def test_the_site_has_the_picture_that_the_script_makes(name: str):
    scene = make_belief_pictures.SCENES[name]
    made = make_belief_pictures.made(metarl.load(make_belief_pictures.player(scene), device="cpu"), scene)
    with Image.open(io.BytesIO(made)) as new, Image.open(make_belief_pictures.IMAGES / f"belief_{name}.png") as shown:
        assert new.size == shown.size, "run `python -m docs.make_belief_pictures`"


def test_the_first_agent_that_ships_plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(make_belief_pictures, "PRETRAINED", tmp_path)
    scene = make_belief_pictures.SCENES["gridnavi"]
    for name in reversed(scene.agents):
        (tmp_path / name).mkdir()
        assert make_belief_pictures.player(scene) == f"pretrained:{name}"
