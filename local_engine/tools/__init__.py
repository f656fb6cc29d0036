"""Tools: what a caller offers, how the model is told, and how its calls are read from or forced upon its text."""
