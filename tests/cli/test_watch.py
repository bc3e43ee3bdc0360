"""`metarl watch`: pictures and videos of what a trained agent does, and mistakes as one sentence."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy import TOY

import metarl
from metarl.cli.watch import main
from metarl.core import rng
from metarl.envs.mujoco import scene as scenes
from metarl.report.video import save_video

AGENT = "pretrained:rl2_gridnavi"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_picture_and_an_animation(capsys: pytest.CaptureFixture[str]):
    assert main([AGENT, "--tasks", "5", "--video", "films/trial.gif", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["lowest", "median", "highest"]
    assert Path("runs/watch_rl2_gridnavi/test.png").read_bytes().startswith(b"\x89PNG")
    with Image.open("films/trial.gif") as film:
        steps = 4 * (metarl.make("metarl/GridNavi-v0").horizon + 1)
        assert 1 < film.n_frames <= steps, "frames that are alike are one"


@pytest.mark.parametrize("seed", [0, 3])
def test_what_is_drawn_is_what_was_scored(seed: int, capsys: pytest.CaptureFixture[str]):
    """The returns below the pictures add up to the score in the heading, whatever the seed."""
    from metarl.evaluation.playback import watch
    from metarl.report.behaviour import chosen_trials

    agent = metarl.load(AGENT)
    curve, watched = watch(agent, agent.family, "test", 4, seed)
    for trial in chosen_trials(agent.family, curve, watched):
        number = int(trial.heading.partition(" on task ")[2].split()[0])
        shown = [sum(scene.episode.rewards) for scene in trial.scenes]
        if watched.repeats == 1:
            assert np.allclose(shown, curve.returns[0, number], atol=1e-4)


def test_a_picture_of_the_belief_along_a_trial(capsys: pytest.CaptureFixture[str]):
    for which in ("lowest", "highest"):
        assert main([AGENT, "--split", "all", "--tasks", "30", "--trial", which, "--belief", f"new/{which}.png"]) == 0
        assert f"Written to new/{which}.png" in capsys.readouterr().out
    lowest, highest = (Path(f"new/{which}.png").read_bytes() for which in ("lowest", "highest"))
    assert lowest.startswith(b"\x89PNG") and lowest != highest


def test_the_trial_of_the_video_can_be_chosen():
    sizes = []
    for which in ("lowest", "highest"):
        assert main([AGENT, "--split", "ood", "--tasks", "30", "--trial", which, "--video", f"{which}.gif"]) == 0
        sizes.append(Path(f"{which}.gif").read_bytes())
    assert sizes[0] != sizes[1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([AGENT, "--video", "trial.avi"], "A video must be a .gif or an .mp4, got 'trial.avi'."),
        ([AGENT, "--video", "trial.mp4"], "pip install 'metarl[video]'"),
        ([AGENT, "--belief", "belief.gif"], "The picture of beliefs must be a .png, got 'belief.gif'."),
        (["pretrained:rl2_two_step", "--belief", "b.png"], "There is no belief to show: The tasks of TwoStep are not"),
        (
            ["pretrained:maml_gridnavi", "--belief", "belief.png"],
            "no belief to show: MAML (likelihood ratio, PPO) adapts",
        ),
        ([AGENT, "--split", "tset"], "Did you mean 'test'?"),
        ([AGENT, "--tasks", "0"], "tasks must be at least 1"),
        (["no/such/run"], "There is no run directory 'no/such/run'"),
        (["run"], "There is nothing to watch: Guess has no picture: implement render(task, states)."),
    ],
)
def test_a_mistake_is_one_sentence(arguments, sentence, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    Path("toy.yaml").write_text(TOY)
    if arguments == ["run"]:
        metarl.run("toy.yaml", total_iterations=1, run_dir="run")
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("metarl watch: ") and sentence in err and err.count("\n") == 1


def test_an_mp4_is_written_frame_by_frame(monkeypatch: pytest.MonkeyPatch):
    """With sides of even numbers, by whatever stands for imageio-ffmpeg."""
    given: list[bytes] = []

    def write_frames(path: str, size: tuple[int, int], **how: float):
        assert size == (8, 6) and how["fps"] == 20.0
        while True:
            try:
                given.append((yield))
            except GeneratorExit:
                Path(path).write_bytes(b"film")
                return

    stand_in = types.ModuleType("imageio_ffmpeg")
    stand_in.write_frames = write_frames  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", stand_in)
    save_video([Image.new("RGB", (7, 5), "red")] * 3, Path("film.mp4"))
    assert Path("film.mp4").read_bytes() == b"film" and [len(frame) for frame in given] == [8 * 6 * 3] * 3


def test_imageio_ffmpeg_writes_an_mp4():
    pytest.importorskip("imageio_ffmpeg", reason="pip install 'metarl[video]'")
    save_video([Image.new("RGB", (31, 32), colour) for colour in ("red", "blue", "green")], Path("film.mp4"))
    assert b"ftyp" in Path("film.mp4").read_bytes()[:16]


@pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*Renderer:pytest.PytestUnraisableExceptionWarning"
)  # MuJoCo 3.3
def test_robots_are_drawn_by_mujoco_where_it_has_a_gl(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("mujoco", reason="pip install 'metarl[mujoco]'")
    family = metarl.make("metarl/HopperRandParams-v0", horizon=5)
    task = family.sample_tasks(rng.key(0), 1)
    state = family.reset(task, rng.fold(rng.key(1), torch.zeros(1, dtype=torch.int64)))
    scene = scenes.robot_scene(family, task, 80)
    assert (scene is not None) == scenes.robots_are_drawn()
    if scene is not None:  # otherwise there is no GL here
        image = scene.image(state)
        assert image.shape == (60, 80, 3) and image.std() > 5
        scene.close()

    def no_gl(*_: object) -> None:
        raise RuntimeError("no GL")

    monkeypatch.setattr(scenes, "RobotScene", no_gl)
    for drawn in (False, True):  # where one seems to be there, MuJoCo may still find none
        monkeypatch.setattr(scenes, "robots_are_drawn", lambda drawn=drawn: drawn)
        assert scenes.robot_scene(family, task, 80) is None
    assert scenes.robot_scene(metarl.make("metarl/GridNavi-v0"), task, 80) is None
