"""Optimised implementations. Each has a plain twin, which gives the same numbers up to rounding.

This file decides where a fast part is used: on a CPU by measurement (``python -m benchmarks.twins``). Nothing has been
measured on a GPU yet; the two losses are used there, since they launch fewer kernels (and on "meta", where tests find
copies). Modules without an entry are used everywhere: `adam` is a twin of torch's own Adam, `capture` and `compiled` of
plain calls.
"""

from __future__ import annotations

from metarl.core.batch_env import step_by
from metarl.fast import gru, linear, perceptron, ppo, tanh
from metarl.fast.rows import env
from metarl.fast.twins import register

register("gradient_through_steps", perceptron.gradient_through_steps, on=("cpu",), suits=perceptron.suits)
register("gru", gru.gru, on=("cpu",))
register("grus", gru.grus, on=("cpu",), suits=gru.alike)
register("gru_step", gru.gru_step, on=("cpu",))
register("hidden_layers", linear.hidden_layers, on=("cpu",), suits=linear.many_rows)
register("linear", linear.linear, on=("cpu",))
register("clipped_surrogate", ppo.clipped_surrogate, on=("cpu", "cuda", "meta"))
register("ppo_loss", ppo.ppo_loss, on=("cpu", "cuda", "meta"))
register("tanh", tanh.tanh, on=("cpu",))
step_by(env.fastest)
