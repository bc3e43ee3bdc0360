"""Sphinx's configuration: ``make docs`` builds the site into docs/_build/html."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.utils.math import pick_math_environment
from docutils.utils.math.latex2mathml import tex2mathml
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import metarl  # noqa: E402  (the checkout that the site is about, not an installed one)
from metarl.studies.bench.page import page  # noqa: E402
from metarl.studies.bench.rows import read  # noqa: E402

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "metarl"
author = "The metarl authors"
copyright = f"2026, {author}"
release = metarl.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
nitpicky = True
# Types in signatures are private, or those of other libraries, whose inventories would need a network to link to.
nitpick_ignore_regex = [("py:class", r"(?!metarl\.(agents\.(maml\.)?)?[A-Z]\w*$).*"), ("py:(data|obj)", ".*")]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 4

default_role = "code"  # in docstrings `name` is code
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autoclass_content = "class"
add_module_names = False
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "metarl"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_domain_indices = False
html_math_renderer = "mathml"
pygments_style = "friendly"
pygments_dark_style = "monokai"

# Names that are imported when they are first used are there for autodoc only after that.
vars(metarl).update({name: getattr(metarl, name) for name in metarl.__all__})


ACCENT = re.compile(
    r"<munderover>\s*(<mi>.</mi>)\s*(<m(\w+)>.*?</m\3>)\s*(<mo stretchy=\"false\">.</mo>)\s*</munderover>", re.DOTALL
)
"""A letter with an index and an accent, as docutils writes ``\\bar Q_i``: with the index below the letter."""

APPLIED = re.compile(r"<mo>&ApplyFunction;</mo>(?=\s*<m(?!o))")
"""Where a function such as log stands before its argument without a bracket."""

WIDEST = 760
"""Pixels for which the text is wide enough."""

INTERVAL = re.compile(r"\[(-?[\d.,]*\d), (-?[\d.,]*\d)\]")


def mathml(text: str, as_block: bool) -> str:
    """A formula as MathML, which browsers draw without a script."""
    written = tex2mathml(text, as_block=as_block)
    written = written.replace('<mover accent="true">', "<mover>")  # an accent's bar would touch its letter
    written = ACCENT.sub(r"<msub><mover>\1\4</mover>\2</msub>", written)
    return APPLIED.sub('<mspace width="0.17em"></mspace>', written)


def inline_math(writer: Any, node: nodes.math) -> None:
    """Write a formula of a sentence."""
    writer.body.append(mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def block_math(writer: Any, node: nodes.math_block) -> None:
    """Write a formula that stands on lines of its own."""
    text = node.astext()
    if "\\\\" in text:
        text = f"\\begin{{{pick_math_environment(text)}}}{text}\\end{{{pick_math_environment(text)}}}"
    writer.body.append(f'<div class="math">{mathml(text, as_block=True)}</div>')
    raise nodes.SkipNode


def keep_intervals_whole(app: Sphinx, document: nodes.document, name: str) -> None:
    """Let no line of a table end inside of an interval ``[low, high]``."""
    for table in document.findall(nodes.table):
        for text in list(table.findall(nodes.Text)):
            if INTERVAL.search(text):
                text.parent.replace(text, nodes.Text(INTERVAL.sub("[\\1,\N{NO-BREAK SPACE}\\2]", text)))


def open_large_pictures(app: Sphinx, document: nodes.document) -> None:
    """Make a picture that is wider than the page a link to itself in its own size."""
    for picture in document.findall(nodes.image):
        path = Path(app.srcdir) / picture["uri"]
        if path.suffix == ".png" and Image.open(path).width > WIDEST:
            picture["width"] = "100%"  # to what has a width, Sphinx adds the link


def write_leaderboard(app: Sphinx, problem: Exception | None) -> None:
    """Write the page of the benchmark's stored results next to bench.html, which links to it."""
    if problem is None and app.builder.format == "html":
        stored = Path(__file__).parent.parent / "benchmarks" / "results" / "bench.json"
        written = page(read(stored)).replace("<body>", '<body><p><a href="bench.html">metarl-bench</a></p>')
        (Path(app.outdir) / "leaderboard.html").write_text(written, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Register what is done to formulas, tables and pictures, and the writing of the benchmark's page."""
    app.connect("doctree-read", open_large_pictures)
    app.connect("doctree-resolved", keep_intervals_whole)
    app.connect("build-finished", write_leaderboard)
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
