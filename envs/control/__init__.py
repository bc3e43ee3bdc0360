"""Classic control with varying dynamics.

The parameters of a task are *multipliers* of the nominal values, with which a family is Gymnasium's environment of the
same name step for step. Derived constants are computed where they are used. float32 keeps up with Gymnasium's float64:
one step from the same state differs by less than 1e-5 (relative), so nothing here is double precision.
"""
