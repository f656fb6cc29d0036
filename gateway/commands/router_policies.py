"""What each policy of a configuration would do with a prompt: the decision of a gateway that has just started."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.errors import StartupError

if TYPE_CHECKING:
    from gateway.billing.prices.book import Prices
    from gateway.catalog import Catalog
    from gateway.db.connect import Database
    from gateway.routing.ask import Decision
    from gateway.routing.knowledge import Knowledge
    from router_models.router import Router, Score


@dataclass(frozen=True, slots=True)
class Judged:
    """One policy's decision, and the artifact that it was made by."""

    router: Router
    score: Score
    decision: Decision


def decide_by_policies(
    prompt: str, artifact: str | Path | None, config: Path | None, data_dir: Path | None
) -> dict[str, Judged]:
    """The decision of every policy for `auto` with this prompt, at the prices of now.

    Each is made by the policy's champion, or all by `artifact`, a version or a file. Where there is no database yet, the
    policies are as configured and the champion is the bundled artifact. Raises ConfigError, StartupError.
    """
    from gateway.commands.configuration import known_catalog
    from gateway.commands.database import database_or_empty
    from gateway.commands.options import settings_with

    settings = settings_with(config=config, data_dir=data_dir)
    catalog = known_catalog(settings)
    with database_or_empty(settings) as database:
        if not catalog.models:
            raise StartupError("the configuration has no models, so no policy has a choice. Add some under `models`")
        routers, known, prices = _prepared(catalog, database, artifact)
        scores = {router.version: router.score_prompt(prompt) for router in routers.values()}
        decide = _decider(prompt, catalog, known, prices)
        for name, router in routers.items():
            decide(name, scores[router.version])
        # A gateway makes the promises of a policy that leaves tiers out when they are first asked for: that was just now.
        known.promises.renew()
        return {
            name: Judged(router, scores[router.version], decide(name, scores[router.version]))
            for name, router in routers.items()
        }


def _prepared(
    catalog: Catalog, database: Database, artifact: str | Path | None
) -> tuple[Mapping[str, Router], Knowledge, Prices]:
    """The router of every policy, what is known beside the request, and the prices of now by model."""
    from gateway.abilities import Abilities
    from gateway.billing.prices.book import PriceBook
    from gateway.promising import promise_maker, promise_maker_of
    from gateway.rescoring import Shelf
    from gateway.routing.knowledge import confidences, make_knowledge
    from gateway.scorers import Scorers, kept_routers

    shelf = Shelf(database)
    given = None if artifact is None else shelf.open(artifact)
    abilities = Abilities(catalog, shelf.bundled, partial(kept_routers, database))
    scorers = Scorers(shelf.bundled, database, catalog.policies)
    scorers.before_use(abilities.learn)
    if given is None:
        scorers.renew()
    else:
        abilities.learn(given)
    book = PriceBook(catalog, database)
    book.renew()
    prices = book.current()
    make = promise_maker_of(scorers.router) if given is None else promise_maker(given)
    known = make_knowledge(catalog, database, lambda: prices.costs, make, abilities.of)
    known.policies.renew()
    routers = {name: given or scorers.champion(name) for name in known.policies.all()}
    for version in {router.version for router in routers.values()}:
        known.promises.prepare(version, confidences(known.policies))
    return routers, known, prices


def _decider(prompt: str, catalog: Catalog, known: Knowledge, prices: Prices) -> Callable[[str, Score], Decision]:
    """Decides for a policy by its name and a score, the way a request of it is decided."""
    import time

    from gateway.api.wire.chat_request import parse_chat_request
    from gateway.callers import Caller
    from gateway.chat.facts import read_facts
    from gateway.chat.question import Question
    from gateway.chat.resolve import resolve_model
    from gateway.chat.route import ask_for
    from gateway.limits.estimate import worst_case
    from gateway.limits.ladder import ladder_of
    from gateway.routing.decide import decide_route

    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": prompt}]}).encode()
    request = parse_chat_request(body, {}, request_id="req_00000000", received_at=time.time(), started=0.0)
    facts = read_facts(request)
    worst = tuple(
        worst_case(request.body, each, cost.dearest(facts.input_most), facts.prompt).amount if cost else 0
        for each, cost in zip(catalog.models, prices.costs, strict=True)
    )

    def decide(policy: str, score: Score) -> Decision:
        caller = Caller("explain", "explain", "default", policy=policy)
        asked, rules = resolve_model(request, caller, catalog), known.policies.in_force(policy)
        ladder = ladder_of(caller, None, (), None, request.body)
        question = Question(request, caller, asked, facts, score, prices, rules.policy, rules.terms, ladder)
        return decide_route(ask_for(question, worst, known), score)

    return decide


def describe(judged: Mapping[str, Judged]) -> list[dict[str, Any]]:
    """The decisions as JSON."""
    from gateway.routing.explain import explain_decision

    return [
        {
            "policy": name,
            "artifact": each.router.version,
            "difficulty": round(each.score.difficulty, 4),
            "decision": each.decision.reason,
            **explain_decision(each.decision),
        }
        for name, each in judged.items()
    ]


def show(judged: Mapping[str, Judged]) -> None:
    """The decisions as text."""
    from gateway.money import PICO_PER_USD, format_usd

    artifacts = {each.router.version for each in judged.values()}
    for row in describe(judged):
        worth = row.get("worth_pico")
        shown = f" (a unit of quality is worth about {worth / PICO_PER_USD:.3g} USD)" if isinstance(worth, int) else ""
        by = f" [{row['artifact']}, difficulty {row['difficulty']:.3f}]" if len(artifacts) > 1 else ""
        click.echo(f"policy {row['policy']}{by}: {row['decision']}{shown}")
        for candidate in (*row["candidates"], *row.get("not_asked", ())):
            cost = format_usd(candidate["expected_cost_pico"])
            basis = f" by {candidate['judged_by']}" if "judged_by" in candidate else ""
            thinks = (
                f" with {tokens} reasoning tokens" if (tokens := candidate.get("expected_reasoning_tokens")) else ""
            )
            click.echo(
                f"  {candidate['model']:<20} {candidate['tier']:<9} quality {candidate['quality']:.3f} "
                f"({candidate['quality_low']:.3f} to {candidate['quality_high']:.3f}){basis}, "
                f"about {cost} USD{thinks}: {candidate['why']}"
            )
        for rejected in row["rejected"]:
            click.echo(f"  {rejected['model']:<20} {rejected['tier']:<9} not asked: {rejected['reason']}")
