"""Upstreams: the OpenAI-compatible fast path, engines, and the scripted provider."""
