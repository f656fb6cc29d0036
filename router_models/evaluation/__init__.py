"""Measures an artifact on prompts it has never seen, beside honest baselines; needs the `train` extra."""
