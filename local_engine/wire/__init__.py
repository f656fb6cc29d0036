"""OpenAI's request bodies: every field that matters is checked, and a wrong one is refused with its name."""
