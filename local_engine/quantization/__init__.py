"""Weights in fewer bits: modules with `Linear`'s `forward`, quantised while loading or offline."""
