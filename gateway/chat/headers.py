"""The `x-penstock-*` response headers: why a request went where it went, and what it cost."""

from __future__ import annotations

from gateway.chat.tab import Tab
from gateway.money import format_usd
from gateway.routing.ask import Candidate
from gateway.types import UsageEvent


def decision_headers(tab: Tab, candidate: Candidate) -> dict[str, str]:
    """What is known when the first byte leaves."""
    score = tab.decision.score
    headers = {
        "x-penstock-request-id": tab.request.request_id,
        "x-penstock-tier": candidate.model.tier,
        "x-penstock-model": candidate.model.name,
        "x-penstock-provider": candidate.model.provider,
        "x-penstock-decision": tab.decision.reason,
        "x-penstock-cache": "miss",
        "x-penstock-attempts": str(max(1, len(tab.attempts) + tab.request.stream)),
    }
    if tab.held_without_store:
        headers["x-penstock-held-without-store"] = "true"
    if score is not None:
        headers["x-penstock-difficulty"] = f"{score.difficulty:.4f}"
        headers["x-penstock-artifact"] = score.artifact
    return headers


def price_headers(tab: Tab, event: UsageEvent) -> dict[str, str]:
    """What is known once the request is metered; a stream sends the same as a comment before `[DONE]`."""
    energy = event.energy
    taken = {"x-penstock-energy-joules": energy.joules_text} if energy is not None else {}
    if event.reserved:
        # Nobody knows yet what it costs, and 0 would be a lie.
        return {
            "x-penstock-held-usd": format_usd(event.charge + event.reserved),
            "x-penstock-overhead-ms": f"{event.overhead_seconds * 1000:.3f}",
            **taken,
        }
    reasoning = sum(attempt.charge.amount("reasoning") for attempt in event.attempts)
    return {
        "x-penstock-cost-usd": format_usd(event.charge),
        "x-penstock-cost-reasoning-usd": format_usd(reasoning),
        "x-penstock-saved-usd": format_usd(tab.saved(event)),
        "x-penstock-overhead-ms": f"{event.overhead_seconds * 1000:.3f}",
        **taken,
    }
