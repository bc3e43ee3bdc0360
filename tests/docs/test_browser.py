"""TensorBoard in a real browser: its pages show a run's results. ``pytest -m browser``"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metarl import train
from metarl.evaluation.curve import AdaptationCurve

pytestmark = pytest.mark.browser

PATIENCE = 240  # seconds, of a busy machine
CONFIG = """\
family:
  name: metarl/BernoulliBandit-v0
  num_arms: 3
  episodes_per_trial: 8
agent:
  name: RL2
  meta_batch_size: 16
  hidden_size: 8
  update_epochs: 2
  num_minibatches: 2
total_iterations: 4
eval_every: 2
eval_tasks: 20
final_eval_tasks: 40
num_threads: 1
device: cpu
"""


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run with its evaluation at the end."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "tiny.yaml").write_text(CONFIG)
    assert train.main(["--config", str(folder / "tiny.yaml"), "--run_dir", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def address(run_dir: Path) -> Iterator[str]:
    """TensorBoard on that run, at a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = ["--logdir", str(run_dir), "--host", "127.0.0.1", "--port", str(port)]
    with (run_dir.parent / "tensorboard.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "tensorboard.main", *where], stdout=log, stderr=log)
        try:
            wait_for(f"http://127.0.0.1:{port}/data/environment", process, run_dir.parent / "tensorboard.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(PATIENCE)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + PATIENCE
    while True:
        assert process.poll() is None and time.monotonic() < limit, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE):
                return
        except urllib.error.URLError:
            time.sleep(0.2)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs `pip install metarl[browser]`")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs a Chromium on the PATH, such as Debian's package chromium")
    with playwright.sync_playwright() as library:
        started = library.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"], timeout=1000 * PATIENCE
        )
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, address: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """An empty page that may load from TensorBoard alone; its last picture is kept in the test's folder."""
    shown = browser.new_page(viewport={"width": 1500, "height": 1250})
    shown.set_default_timeout(1000 * PATIENCE)
    shown.route(lambda url: not url.startswith((address, "data:", "blob:")), lambda route: route.abort())
    yield shown
    shown.screenshot(path=tmp_path / f"{request.node.name}.png", animations="disabled")
    shown.close()


def visit(page: Any, address: str, tab: str) -> None:
    page.goto(f"{address}/#{tab}", wait_until="domcontentloaded")


def test_scalars(page: Any, address: str):
    visit(page, address, "scalars")
    for group in ("eval", "loss", "time", "train"):
        page.locator("tf-scalar-dashboard").get_by_text(group, exact=True).first.wait_for()
    page.locator("tf-scalar-card").first.wait_for()


def test_custom_scalars_begin_with_the_overview(page: Any, address: str):
    visit(page, address, "custom_scalars")
    page.get_by_text("gradient norm", exact=True).wait_for()
    categories = page.locator("tf-custom-scalar-dashboard tf-category-paginated-view")
    categories.nth(3).wait_for(state="attached")
    titles = [categories.nth(i).locator(".category-name").first.inner_text() for i in range(categories.count())]
    assert [title.strip() for title in titles] == [
        "overview", "adaptation on test", "adaptation on train", "adaptation on ood",
    ]  # fmt: skip
    for title in (
        "test: all points",
        "test: episode 1",
        "test: episode 8",
        "return of an episode in training",
        "losses",
        "KL and clip fraction",
        "entropy",
        "explained variance",
        "steps per second",
        "memory, MB",
    ):
        page.get_by_text(title, exact=True).first.wait_for()
    matches = page.locator("tf-custom-scalar-multi-line-chart-card").get_by_text("Matches (3)")
    matches.first.wait_for()  # train/return, return_first and return_last


def test_images_are_loaded(page: Any, address: str):
    visit(page, address, "images&tagFilter=^eval/test/")
    found = page.locator("tf-image-dashboard tf-category-paginated-view").first  # below it come all tags, by group
    for name in ("tasks", "where", "best_arm", "curve", "behaviour/strip", "behaviour/trial"):
        image = found.locator("tf-image-loader").filter(has_text=f"eval/test/{name}").locator("img").first
        image.wait_for()
        page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=image.element_handle())
        assert 100 < image.evaluate("image => image.naturalWidth") <= 1600
    assert found.locator("tf-image-loader").count() == 6


def test_texts(page: Any, address: str):
    visit(page, address, "text")
    page.get_by_text("python -m metarl.train").first.wait_for()
    page.get_by_text("total_iterations: 4").first.wait_for()
    for name in ("family", "runtime", "versions"):
        page.locator("tf-text-dashboard").get_by_text(name, exact=True).first.wait_for()
    page.locator("tf-text-dashboard").get_by_text("family", exact=True).first.click()
    page.get_by_text("slot machines that pay 1 or nothing").first.wait_for()


def test_hparams_have_the_results(page: Any, address: str, run_dir: Path):
    page.set_viewport_size({"width": 2600, "height": 700})  # the table shows the columns that fit
    visit(page, address, "hparams")
    page.get_by_text("Trial ID").first.wait_for()
    table = page.locator("vaadin-grid").first
    for name in (*(f"eval/{split}/score" for split in ("test", "train", "ood")), "eval/test/normalised"):
        table.get_by_text(name, exact=True).first.wait_for()
    for split in ("test", "train", "ood"):
        score = AdaptationCurve.load(run_dir / "evaluation" / split).summary()["score"]
        table.get_by_text(f"{score:.4f}"[:5]).first.wait_for()
