"""What a request needs and how large it is, read once from its body (pure)."""

from __future__ import annotations

from gateway.chat.request import ChatRequest
from gateway.limits.estimate import TOKENS_PER_REQUEST, PromptSize, measure_prompt
from gateway.value import value

BYTES_PER_TOKEN = 4
LONGEST_TOKEN = 16
VISION_PARTS = frozenset({"image_url", "input_image", "image"})
AUDIO_PARTS = frozenset({"input_audio", "audio"})


@value
class Facts:
    """`needs` are capabilities a model must have; `output_tokens` is 0 when the request names no limit.

    `input_likely` is for comparing prices; `input_least` is what a context window is checked with: no real text has more
    than LONGEST_TOKEN bytes per token on average, so a prompt that is too long by this count is too long.
    """

    needs: frozenset[str]
    tools: bool
    json_schema: bool
    prompt: PromptSize
    input_likely: int
    input_least: int
    input_most: int
    output_tokens: int
    service_tier: str | None
    """The provider's service tier that the request asks for; the reply says which one it got."""

    @property
    def prompt_characters(self) -> int:
        """About how long the prompt's text is, for an estimate when an upstream did not count."""
        return self.prompt.text - TOKENS_PER_REQUEST


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
            kinds = {kind for part in content if isinstance(kind := part.get("type"), str)}
            if kinds & VISION_PARTS:
                needs.add("vision")
            if kinds & AUDIO_PARTS:
                needs.add("audio")
    if tools:
        needs.add("tools")
    if json_schema or (isinstance(response_format, dict) and response_format.get("type") == "json_object"):
        needs.add("json_schema")
    prompt = measure_prompt(body)
    media = prompt.images + prompt.audio
    service_tier = body.get("service_tier")
    return Facts(
        needs=frozenset(needs),
        tools=tools,
        json_schema=json_schema,
        prompt=prompt,
        input_likely=prompt.text // BYTES_PER_TOKEN + media,
        input_least=prompt.text // LONGEST_TOKEN,
        input_most=prompt.text + media,
        output_tokens=max(body.get("max_completion_tokens") or 0, body.get("max_tokens") or 0),
        service_tier=service_tier if isinstance(service_tier, str) else None,
    )
