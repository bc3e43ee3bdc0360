"""Classic control with varying dynamics.

The parameters of a task are *multipliers* of the nominal values; with multipliers of 1, a family equals Gymnasium's
environment of the same name step for step. Derived constants are computed where they are used. float32 is sufficient:
one step from the same state differs from Gymnasium's float64 by less than 1e-5 (relative).
"""
