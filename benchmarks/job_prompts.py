"""Which recorded prompts the main job asks: never trained on, scored for every tier, the same for the same seed."""

import random

from benchmarks.recorded_answers import TIER_MODELS, Prompt, RecordedAnswers
from router_models.training.data import is_held_out

# Shares of the job. The drift sets with two possible answers stand in equal parts: in each alone a constant answer wins.
# drift_opinionqa and drift_sensitiveq have no score and are left out.
SHARES = {
    "gsm8k_test": 0.40,
    "mmlu_pro": 0.40,
    "drift_prime": 0.06,
    "drift_composite": 0.06,
    "drift_counthappynumber": 0.06,
    "drift_leetcode_easy": 0.02,
}


def choose(recorded: RecordedAnswers, count: int, seed: int) -> list[Prompt]:
    """`count` prompts in the proportions of SHARES, in random order. Raises ValueError when a set has too few."""
    chance = random.Random(seed)
    seen: set[str] = set()
    usable: dict[str, list[Prompt]] = {dataset: [] for dataset in SHARES}
    for prompt in recorded.prompts:
        text = prompt.text.strip()
        if prompt.dataset in usable and text not in seen and _is_usable(prompt, recorded):
            usable[prompt.dataset].append(prompt)
        seen.add(text)
    chosen: list[Prompt] = []
    for dataset, wanted in _numbers(count).items():
        if len(usable[dataset]) < wanted:
            raise ValueError(
                f"{dataset!r} has {len(usable[dataset])} usable prompts, {wanted} are wanted: lower --requests"
            )
        chosen += chance.sample(usable[dataset], wanted)
    chance.shuffle(chosen)
    return chosen


def _is_usable(prompt: Prompt, recorded: RecordedAnswers) -> bool:
    answers = [recorded.find(prompt.text, tier) for tier in TIER_MODELS]
    scored = all(answer is not None and answer.score is not None for answer in answers)
    return scored and is_held_out(prompt.dataset, prompt.stem_key)


def _numbers(count: int) -> dict[str, int]:
    """How many per set: shares rounded down, what is missing goes to the first sets."""
    numbers = {dataset: int(count * share) for dataset, share in SHARES.items()}
    for dataset in list(numbers)[: count - sum(numbers.values())]:
        numbers[dataset] += 1
    return numbers
