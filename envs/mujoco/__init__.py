"""Robots in MuJoCo, which `pip install 'metarl[mujoco]'` brings."""
