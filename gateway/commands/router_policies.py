"""What each policy of a configuration would do with a prompt: the decision of a gateway that has just started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.errors import StartupError

if TYPE_CHECKING:
    from gateway.routing.ask import Decision
    from router_models.router import Router


def decide_by_policies(prompt: str, model: Router, config: Path | None, data_dir: Path | None) -> dict[str, Decision]:
    """The decision of every policy for `auto` with this prompt, at the prices of now. Raises ConfigError, StartupError."""
    import time

    from gateway.api.wire.chat_request import parse_chat_request
    from gateway.billing.prices.book import PriceBook
    from gateway.callers import Caller
    from gateway.chat.facts import read_facts
    from gateway.chat.question import Question
    from gateway.chat.resolve import resolve_model
    from gateway.chat.route import ask_for
    from gateway.commands.options import settings_with
    from gateway.commands.owners import open_owners
    from gateway.limits.estimate import worst_case
    from gateway.limits.ladder import ladder_of
    from gateway.promising import abilities_of, promise_maker
    from gateway.routing.decide import decide_route
    from gateway.routing.knowledge import confidences, make_knowledge

    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": prompt}]}).encode()
    request = parse_chat_request(body, {}, request_id="req_00000000", received_at=time.time(), started=0.0)
    facts, score = read_facts(request), model.score_prompt(prompt)
    with open_owners(settings_with(config=config, data_dir=data_dir)) as (catalog, database):
        if not catalog.models:
            raise StartupError("the configuration has no models, so no policy has a choice. Add some under `models`")
        book = PriceBook(catalog, database)
        book.renew()
        prices = book.current()
        make, abilities = promise_maker(model), abilities_of(catalog, model)
        known = make_knowledge(catalog, database, lambda: prices.costs, make, lambda _: abilities)
        known.policies.renew()
        known.promises.prepare(score.artifact, confidences(known.policies))
    worst = tuple(
        worst_case(request.body, each, cost.dearest(facts.input_most), facts.prompt).amount if cost else 0
        for each, cost in zip(catalog.models, prices.costs, strict=True)
    )
    decisions = {}
    for name in known.policies.all():
        caller = Caller("explain", "explain", "default", policy=name)
        asked, rules = resolve_model(request, caller, catalog), known.policies.in_force(name)
        ladder = ladder_of(caller, None, (), None, request.body)
        question = Question(request, caller, asked, facts, score, prices, rules.policy, rules.terms, ladder)
        decisions[name] = decide_route(ask_for(question, worst, known), score)
    return decisions


def describe(decisions: dict[str, Decision]) -> list[dict[str, Any]]:
    """The decisions as JSON."""
    from gateway.routing.explain import explain_decision

    return [
        {"policy": name, "decision": decision.reason, **explain_decision(decision)}
        for name, decision in decisions.items()
    ]


def show(decisions: dict[str, Decision]) -> None:
    """The decisions as text."""
    from gateway.money import PICO_PER_USD, format_usd

    for row in describe(decisions):
        worth = row.get("worth_pico")
        shown = f" (a unit of quality is worth about {worth / PICO_PER_USD:.3g} USD)" if isinstance(worth, int) else ""
        click.echo(f"policy {row['policy']}: {row['decision']}{shown}")
        for candidate in (*row["candidates"], *row.get("not_asked", ())):
            cost = format_usd(candidate["expected_cost_pico"])
            click.echo(
                f"  {candidate['model']:<20} {candidate['tier']:<9} quality {candidate['quality']:.3f} "
                f"({candidate['quality_low']:.3f} to {candidate['quality_high']:.3f}), about {cost} USD: {candidate['why']}"
            )
        for rejected in row["rejected"]:
            click.echo(f"  {rejected['model']:<20} {rejected['tier']:<9} not asked: {rejected['reason']}")
