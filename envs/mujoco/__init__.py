"""Robots in MuJoCo (`pip install 'metarl[mujoco]'`)."""
