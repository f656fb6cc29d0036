"""A decision as plain JSON for the request log: every candidate with quality and price, and why the others were not."""

from __future__ import annotations

from typing import Any

from gateway.routing.ask import Decision


def explain_decision(decision: Decision) -> dict[str, Any]:
    """What the log row and the admin API show. Costs are pico-USD."""
    explanation: dict[str, Any] = {
        "candidates": [
            {
                "model": candidate.model.name,
                "tier": candidate.model.tier,
                "quality": round(candidate.quality, 4) if candidate.quality is not None else None,
                "expected_cost_pico": candidate.expected_cost,
                "worst_cost_pico": candidate.worst_cost,
            }
            for candidate in decision.candidates
        ],
        "rejected": [
            {"model": rejected.model, "tier": rejected.tier, "reason": rejected.reason}
            for rejected in decision.rejected
        ],
    }
    if decision.too_dear is not None:
        explanation["over_budget"] = decision.too_dear
    if decision.floor is not None:
        explanation["floor"] = round(decision.floor, 4)
    return explanation
