"""Which model answers: difficulty, decision, explanation."""
