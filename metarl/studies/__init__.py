"""Studies that are made of many runs or evaluations: a benchmark, tuning, stress."""
