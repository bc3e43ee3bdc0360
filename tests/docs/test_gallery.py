"""The pages of families: they are what the docstrings say, and every family has its picture."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from registered_families import PRESETS_ELSEWHERE

import metarl
from docs import make_gallery
from metarl.report.card import short_name

IDS = make_gallery.shipped()
PRETRAINED = Path(metarl.__file__).parent / "pretrained"
FOLDER = make_gallery.DOCS / make_gallery.PAGES
PAGES = {file.stem: file.read_text(encoding="utf-8") for file in FOLDER.glob("*.md")}


def test_the_pages_are_what_the_docstrings_say():
    made = make_gallery.pages(IDS)
    assert set(made) == set(PAGES)
    for name, page in made.items():
        assert page == PAGES[name], f"run `{make_gallery.COMMAND}`"
        assert make_gallery.COMMAND in page.splitlines()[0]


def test_every_family_is_in_one_group():
    names = [name for group in make_gallery.GROUPS.values() for name in group.names]
    assert sorted(names) == sorted(map(short_name, IDS)) and set(make_gallery.OVERVIEW) == set(names)
    with pytest.raises(ValueError, match="GridNavi belongs to no group"):
        groups = {file: group for file, group in make_gallery.GROUPS.items() if file != "grids"}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(make_gallery, "GROUPS", groups)
            make_gallery.pages(["metarl/GridNavi-v0"])


@pytest.mark.parametrize("id", IDS)
def test_every_family_is_on_a_page(id):
    short = short_name(id)
    (page,) = [page for name, page in PAGES.items() if f"\n## {short}\n" in page]
    assert f"`{id}`" in page and make_gallery.link(short) in PAGES["index"]
    name = f"images/families/{short}.png"
    assert f"](../{name})" in page
    file = make_gallery.DOCS / name
    assert file.stat().st_size < 60_000
    with Image.open(file) as image:
        assert 80 <= image.height <= 400 and image.width <= make_gallery.WIDTH


def test_no_scene_or_picture_without_a_family():
    names = {short_name(id) for id in IDS}
    assert set(make_gallery.SCENES) <= names
    assert {file.stem for file in (make_gallery.DOCS / make_gallery.PICTURES).iterdir()} == names


def test_families_whose_agents_ship_are_pictured_with_them():
    folders = [folder for folder in PRETRAINED.iterdir() if (folder / "config.yaml").exists()]
    names = [folder.name for folder in folders if folder.name not in PRESETS_ELSEWHERE]
    agents = {name: metarl.load(f"pretrained:{name}", device="cpu") for name in names}
    played = {type(agent.family).__name__.removesuffix("Family") for agent in agents.values()}
    assert len(played) > 10
    for name in played:
        scene = make_gallery.SCENES[name]
        assert isinstance(scene.agent, str)
        assert type(agents[scene.agent].family).__name__.removesuffix("Family") == name
        assert "agent of the package" in scene.who


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_tables_have_as_many_cells_in_each_row(page):
    for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_a_table_becomes_markdown():
    section = """\
Before, in ``code``.

=====  =================  ==========
index  meaning            range
=====  =================  ==========
0 … 8  wall or free: the  {0, 1}
       cells around
9      |x|, `y`           wider than its border
=====  =================  ==========
After * it < this.

- a list
  goes on"""
    assert (
        make_gallery.markdown(section)
        == """\
Before, in `code`.

| index | meaning | range |
|---|---|---|
| 0 … 8 | wall or free: the cells around | {0, 1} |
| 9 | \\|x\\|, `y` | wider than its border |

After \\* it &lt; this.

- a list
  goes on"""
    )


def test_a_table_without_an_end():
    with pytest.raises(ValueError, match="three borders"):
        make_gallery.markdown("==  ==\na   b\n==  ==\n1   2")


def test_a_strip():
    tall, wide = Image.new("RGB", (100, 400), "red"), Image.new("RGB", (300, 100), "blue")
    row = np.asarray(make_gallery.strip([tall, wide], ["one", "two"], gap=10, line=20))
    assert row.shape == (340, 80 + 10 + 300, 3)
    assert row[20, 0].tolist() == row[339, 79].tolist() == [255, 0, 0] and row[20, 90].tolist() == [0, 0, 255]
    assert row[0, 389].tolist() == row[339, 200].tolist() == [255, 255, 255]


def test_a_picture_is_made():
    image = make_gallery.picture("metarl/GridNavi-v0")
    with Image.open(make_gallery.DOCS / make_gallery.PICTURES / "GridNavi.png") as saved:
        assert image.size == saved.size
