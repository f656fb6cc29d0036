"""The configuration of `penstock up` without a file: the bundled model, and OpenAI as premium tier when there is a key."""

from __future__ import annotations

from typing import Any

import yaml

from gateway.settings import Settings

HEADER = """\
# What `penstock up` runs without a configuration of your own. It is written again at each start:
# to change it, copy it to penstock.yaml and run `penstock up --config penstock.yaml`.
"""


def built_in_config(settings: Settings, *, engine: bool) -> dict[str, Any]:
    """The document, as it would stand in penstock.yaml. Prices are USD per million tokens."""
    models: list[dict[str, Any]] = []
    if engine:
        models.append(
            {
                "name": "smollm2",
                "tier": "economy",
                "engine": "bundled",
                "weights": "smollm2-135m-instruct",
                # It is far below its tier: what was recorded of it, not what small models usually can.
                "quality": {"recorded": "smollm2-135m-instruct"},
                "price": {"input": 0.01, "output": 0.02},
                "capabilities": [],
                "context": 8192,
                "max_output": 1024,
                # A CPU may be slow and the engine queues requests: waiting is better than failing.
                "deadlines": {"first_token": 180.0, "between_tokens": 60.0},
            }
        )
    if settings.openai_api_key:
        models.append(
            {
                "name": "gpt-4o",
                "tier": "premium",
                "provider": "openai",
                "model": "gpt-4o",
                "quality": {"recorded": "gpt-4o-2024-08-06"},
                "base_url": settings.openai_base_url,
                "api_key": "env:OPENAI_API_KEY",
                "price": {"input": 2.5, "cached_input": 1.25, "output": 10},
                "capabilities": ["tools", "json_schema", "vision"],
                "context": 128_000,
            }
        )
    return {"models": models}


def built_in_yaml(settings: Settings, *, engine: bool) -> str:
    """The same as text, with a word about where it comes from. It holds no secret, only the name of a variable."""
    return HEADER + yaml.safe_dump(built_in_config(settings, engine=engine), sort_keys=False)
