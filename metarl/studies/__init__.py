"""Studies of many runs or evaluations: benchmark, tuning, stress tests."""
