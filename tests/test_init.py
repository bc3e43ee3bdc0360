"""The public names, and that importing them is quick."""

import subprocess
import sys
from pathlib import Path

import metarl

SLOW = ("matplotlib", "tensorboard", "stable_baselines3", "scipy", "jsonargparse", "rich")


def test_public_names():
    names = ("registered", "make", "register", "load", "evaluate", "run", "Run", "register_baseline", "Player")
    for name in (*names, "AdaptationCurve", "TaskFamily", "__version__"):
        assert name in metarl.__all__
        assert getattr(metarl, name)
    assert callable(metarl.evaluate)
    assert "metarl/GridNavi-v0" in metarl.registered()


def test_import_brings_no_plotting_logging_or_parsing():
    program = f"import sys, metarl; print(*[name for name in {SLOW} if name in sys.modules])"
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_gymnasium_id_is_registered_by_the_import():
    import gymnasium

    assert set(metarl.registered()) <= set(gymnasium.registry)
