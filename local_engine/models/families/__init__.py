"""One small file per family of models: its names, and how its configuration differs from Llama's."""
