"""Trains the router's artifact; the only part of the package that needs the `train` extra (pandas, scipy, scikit-learn)."""
