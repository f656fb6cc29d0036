"""What a request needs and how large it is, read once from its body (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.chat.request import ChatRequest
from gateway.limits.estimate import InputTokens, estimate_input, most_output

VISION_PARTS = frozenset({"image_url", "input_image", "image"})
AUDIO_PARTS = frozenset({"input_audio", "audio"})


@dataclass(frozen=True, slots=True)
class Facts:
    """`needs` are capabilities a model must have; `output_tokens` is 0 when the request names no limit."""

    needs: frozenset[str]
    tools: bool
    json_schema: bool
    input: InputTokens
    output_tokens: int


def read_facts(request: ChatRequest) -> Facts:
    """Read capabilities and sizes from a checked request."""
    body = request.body
    needs = set[str]()
    tools = bool(body.get("tools") or body.get("functions"))
    response_format = body.get("response_format")
    json_schema = isinstance(response_format, dict) and response_format.get("type") == "json_schema"
    for message in request.messages:
        content = message.get("content")
        if isinstance(content, list):
            kinds = {part.get("type") for part in content}
            if kinds & VISION_PARTS:
                needs.add("vision")
            if kinds & AUDIO_PARTS:
                needs.add("audio")
    if tools:
        needs.add("tools")
    if json_schema:
        needs.add("json_schema")
    return Facts(frozenset(needs), tools, json_schema, estimate_input(body), most_output(body))
