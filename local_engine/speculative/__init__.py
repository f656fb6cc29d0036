"""Speculative decoding: drafters propose tokens, the target checks them all in one step and keeps its own distribution."""
