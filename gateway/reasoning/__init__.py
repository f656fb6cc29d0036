"""Reasoning about answers: what the final answer of a reply is."""
