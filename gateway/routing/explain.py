"""A decision as plain JSON for the request log: every candidate with quality, price and time, and why the others were not."""

from __future__ import annotations

from math import isfinite
from typing import Any

from gateway.money import format_usd
from gateway.routing.ask import Candidate, Decision


def explain_decision(decision: Decision) -> dict[str, Any]:
    """What the log row and the admin API show. Costs are pico-USD, times seconds; what is not known is left out."""
    first = decision.candidates[0] if decision.candidates else None
    explanation: dict[str, Any] = {
        "candidates": [_candidate(each, first, decision) for each in decision.candidates],
        "rejected": [
            {"model": rejected.model, "tier": rejected.tier, "reason": rejected.reason}
            for rejected in decision.rejected
        ],
    }
    rejected = {each.model for each in decision.rejected}
    spare = [each for each in decision.spare if each.model.name not in rejected]
    if spare:
        explanation["not_asked"] = [_candidate(each, first, decision) for each in spare]
    if decision.score is not None and any(each.reasoning_tokens for each in (*decision.candidates, *spare)):
        explanation["thinking_gain"] = round(decision.score.thinking_gain, 4)
    if decision.too_dear is not None:
        explanation["over_budget"] = decision.too_dear
    if decision.floor is not None:
        explanation["floor"] = round(decision.floor, 4)
    if decision.worth is not None:
        # An infinite worth cannot be written in JSON.
        explanation["worth_pico"] = round(decision.worth) if isfinite(decision.worth) else "infinite"
    return explanation


def _candidate(candidate: Candidate, first: Candidate | None, decision: Decision) -> dict[str, Any]:
    interval = candidate.interval
    shown: dict[str, Any] = {
        "model": candidate.model.name,
        "tier": candidate.model.tier,
        "quality": round(candidate.quality, 4) if candidate.quality is not None else None,
        "expected_cost_pico": candidate.expected_cost,
        "worst_cost_pico": candidate.worst_cost,
    }
    if interval is not None:
        shown["quality_low"], shown["quality_high"] = round(interval.low, 4), round(interval.high, 4)
    if candidate.basis is not None:
        shown["judged_by"] = candidate.basis
    if candidate.seconds is not None:
        shown["expected_seconds"] = round(candidate.seconds, 3)
    if candidate.first_token is not None:
        shown["expected_first_token_seconds"] = round(candidate.first_token, 3)
    if candidate.reasoning_tokens:
        shown["expected_reasoning_tokens"] = candidate.reasoning_tokens
    if candidate.cached:
        shown["cached_tokens"] = candidate.cached
    first_words = "tried again: it was too slow" if candidate.retried else "asked first"
    first_words += f" although {candidate.behind}" if candidate.behind else ""
    shown["why"] = first_words if candidate is first or first is None else _why_not(candidate, first, decision)
    return shown


def _why_not(candidate: Candidate, first: Candidate, decision: Decision) -> str:
    """Why this one stands behind the first."""
    if candidate.burden > first.burden and candidate.behind is not None:
        return candidate.behind
    dearer = candidate.expected_cost - first.expected_cost
    better = (candidate.quality or 0.0) - (first.quality or 0.0)
    cost = f"{format_usd(abs(dearer))} USD {'dearer' if dearer >= 0 else 'cheaper'}"
    if abs(better) < 0.00005:
        return f"as good, {cost}" if dearer else "the same, another's turn"
    quality = f"{abs(better):.4f} {'better' if better > 0 else 'worse'}"
    worth = decision.worth
    if worth is None or not isfinite(worth) or worth == 0.0:
        return f"{quality}, {cost}"
    # A worth is a judgement, not an amount: three digits say all there is to say.
    value = format_usd(int(float(f"{abs(better) * worth:.2e}")))
    return f"{quality}, which is worth {value} USD, and {cost}"
