"""The bundled inference engine: llama-architecture models in torch behind an OpenAI-compatible server."""
