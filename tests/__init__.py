"""The tests, a package by name, so that an installed `tests` of somebody else cannot stand in its place."""
