"""One script per number in the README; each writes benchmarks/results/*.json. Not part of the installed package."""
