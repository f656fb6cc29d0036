"""Which recorded model stands for which tier, as data; a model that is not named here is not used for any tier.

The bands follow what the models do on the prompts they share (the ability that `item_response` estimates), not only
their size or price: economy is what a model of 3 to 9 billion parameters or an early hosted model does, standard
what 30 to 120 billion parameters or a small hosted model of 2024 does, premium what the best of their year do.
"""

from __future__ import annotations

from router_models.tiers import Tier

# The tables spell some models differently in different sets; the item-response model links the sets through them.
SAME_MODEL = {
    "Meta-Llama-3_1-8B-Instruct": "llama-3.1-8b-instruct",
    "Meta-Llama-3.1-8B-Instruct": "llama-3.1-8b-instruct",
    "Meta-Llama-3_1-70B-Instruct": "llama-3.1-70b-instruct",
    "Meta-Llama-3.1-70B-Instruct": "llama-3.1-70b-instruct",
    "gemini-1.5-flash-002": "gemini-1.5-flash",
    "gemini-1.5-pro-002": "gemini-1.5-pro",
    "mistralai/Mixtral-8x7B-Instruct-v0.1": "Mixtral-8x7B-Instruct-v0.1",
    "Qwen2.5-7B-Instruct": "qwen2.5-7b-instruct",
    "gemma-2-27b-it@together": "gemma-2-27b-it",
}

TIER_MODELS: dict[Tier, frozenset[str]] = {
    "economy": frozenset(
        {
            "Meta-Llama-3-8B",
            "Meta-Llama-3-8B-Instruct",
            "Meta-Llama-3_1-8B",
            "Mistral-7B-Instruct-v0.1",
            "Mistral-7B-Instruct-v0.2",
            "Mistral-7B-v0.1",
            "Mistral-7B-v0.2-hf",
            "Mistral-Nemo-Instruct-2407",
            "Mixtral-8x7B-Instruct-v0.1",
            "Mixtral-8x7B-v0.1",
            "Phi-3-mini-4k-instruct",
            "Phi-3.5-mini-instruct",
            "Qwen1.5-7B-Chat",
            "Qwen2-7B-Instruct",
            "Qwen2.5-3B-Instruct",
            "Yi-1.5-34B-Chat",
            "Yi-1.5-9B-Chat",
            "Yi-34B",
            "Yi-6B",
            "Yi-6b-Chat",
            "claude-3-haiku-20240307",
            "gemma-2-9b-it",
            "gemma-7b",
            "gpt-3.5-turbo-0125",
            "gpt-3.5-turbo-0301",
            "gpt-3.5-turbo-0613",
            "llama-3.1-8b-instruct",
            "mathstral-7B",
            "mistral-7b-instruct-v0.3",
            "qwen2.5-7b-instruct",
        }
    ),
    "standard": frozenset(
        {
            "Athene-70B",
            "DeepSeek-Coder-V2",
            "DeepSeek-Coder-V2-0724",
            "Meta-Llama-3-70B",
            "Meta-Llama-3-70B-Instruct",
            "Meta-Llama-3.1-70B-Instruct@hyperbolic",
            "Meta-Llama-3_1-70B",
            "Mistral-Large-2",
            "Qwen1.5-110B",
            "Qwen1.5-72B-Chat",
            "Qwen2-72B-Instruct",
            "Qwen2.5-32B-Instruct",
            "Qwen2.5-72B-Instruct",
            "claude-3-5-haiku-20241022",
            "claude-3-opus-20240229",
            "claude-3-sonnet-20240229",
            "deepseek-chat",
            "deepseek-coder",
            "deepseek-v2.5-0908",
            "gemini-1.5-flash",
            "gemini-1.5-flash-exp-0827",
            "gemma-2-27b-it",
            "gpt-4-0314",
            "gpt-4o-mini-2024-07-18",
            "jamba-1.5-large",
            "llama-3.1-70b-instruct",
            "llama-3.1-nemotron-51b-instruct",
            "reka-core-20240501",
            "yi-large",
            "yi-large-preview",
        }
    ),
    "premium": frozenset(
        {
            "Llama-3.1-405B-Inst@sambanova",
            "Llama-3.1-405B-Instruct-Turbo",
            "Meta-Llama-3.1-405B-Instruct@hyperbolic",
            "chatgpt-4o-latest-24-09-07",
            "claude-3-5-sonnet-20240620",
            "claude-3-5-sonnet-20241022",
            "gemini-1.5-pro",
            "gemini-1.5-pro-exp-0801",
            "gemini-1.5-pro-exp-0827",
            "gpt-4-1106-preview",
            "gpt-4-turbo-2024-04-09",
            "gpt-4o-2024-05-13",
            "gpt-4o-2024-08-06",
            "grok-2-1212",
            "o1-mini-2024-09-12",
            "o1-preview-2024-09-12",
        }
    ),
}

# Recorded, used to learn how hard the prompts are, but standing for no tier.
NO_TIER = {
    "Llama-2-7b-hf": "older than anything one would deploy",
    "Llama-2-13b-hf": "older than anything one would deploy",
    "Llama-2-70b-hf": "large, yet with the ability of a small model",
    "c4ai-command-r-v01": "middle size, lower ability; would blur two bands",
    "command-r": "middle size, lower ability; would blur two bands",
    "command-r-plus": "large, yet with the ability of a small model",
    "codegemma-7b": "made for code only",
    "gemma-2-2b-it": "far below the band; one model of this size is no band",
    "gpt-4-0613": "its recorded runs answer in three tokens against the instruction to think",
    "llama-3.3-nemotron-super-49b-v1": "trained to reason at length; in its recorded runs below models of a sixth of its "
    "size on questions of knowledge, so no band's example (it is one of a pair that tells where reasoning helps)",
    "llama3-chatqa-1.5-8b": "made for questions with a given document",
    "llama3-chatqa-1.5-70b": "made for questions with a given document",
    "openai-gsm8k/6b_finetuning": "research run of 2021",
    "openai-gsm8k/6b_verification": "research run of 2021",
    "openai-gsm8k/175b_finetuning": "research run of 2021",
    "openai-gsm8k/175b_verification": "research run of 2021",
    "reka-flash-20240226": "between two bands",
}

_TIER_OF: dict[str, Tier] = {model: tier for tier, models in TIER_MODELS.items() for model in models}


def canonical_model(model: str) -> str:
    """One spelling per model."""
    return SAME_MODEL.get(model, model)


def tier_of(model: str) -> Tier | None:
    """The tier a recorded model stands for, in any spelling; None for a model that stands for none."""
    return _TIER_OF.get(canonical_model(model))
