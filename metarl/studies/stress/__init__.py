"""Stress tests: the loss of an agent under conditions that it was not trained for."""
