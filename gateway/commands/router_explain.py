"""`penstock router explain`: why a prompt looks hard or easy, and what every policy would do with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.commands.options import config_option, data_dir_option, json_option, print_json, settings_with
from gateway.commands.router_replay import artifact_named

if TYPE_CHECKING:
    from router_models.explain import Contribution, Explanation
    from router_models.router import Router, Score

SHOWN_PARTS, SHOWN_WORDS = 6, 5
UNIT = "logits of ease: +0.7 is about twice the odds of a good answer"


@click.command(short_help="Why a prompt looks hard or easy, and what each policy would do with it.")
@click.argument("prompt")
@click.option(
    "--artifact",
    metavar="VERSION_OR_FILE",
    help="Score with this one. [default: the champion of each policy; without a configuration the bundled one]",
)
@config_option
@data_dir_option
@json_option
def explain(prompt: str, artifact: str | None, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """What makes PROMPT harder or easier than the prompts of the training data: its score, and what moved it most.

    With a configuration also what each of its policies would do with it, at the prices of now.
    """
    from gateway.commands.router_policies import decide_by_policies, describe, show
    from router_models.request import RequestText

    configured = settings_with(config=config).config is not None
    named = artifact_named(artifact)
    judged = decide_by_policies(prompt, named, config, data_dir) if configured else {}
    model = judged.get("default", next(iter(judged.values()))).router if judged else _router(named, data_dir)
    score, why = model.score_prompt(prompt), model.explain(RequestText.from_prompt(prompt))
    if as_json:
        print_json({"score": score.as_dict(), "explanation": _document(why), "policies": describe(judged)})
        return
    _show_score(score)
    _show_why(why)
    show(judged)


def _router(artifact: str | Path | None, data_dir: Path | None) -> Router:
    """The bundled artifact, that of a file, or that of a version in the database. Raises StartupError or ConfigError."""
    from gateway.commands.database import open_database
    from gateway.errors import StartupError
    from gateway.rescoring import Shelf
    from router_models.errors import ArtifactError
    from router_models.router import Router

    try:
        if not isinstance(artifact, str):
            return Router.load(artifact)
    except ArtifactError as error:
        raise StartupError(f"the router's trained artifact cannot be used: {error}") from error
    with open_database(settings_with(data_dir=data_dir)) as database:
        return Shelf(database).open(artifact)


def _document(why: Explanation) -> dict[str, Any]:
    return {
        "unit": UNIT,
        "ease": round(why.ease, 4),
        "usual_ease": round(why.usual, 4),
        "parts": [{"part": each.feature, "detail": each.detail, **_push(each)} for each in why.parts],
        "words": [{"word": each.feature, **_push(each)} for each in why.words],
    }


def _push(each: Contribution) -> dict[str, Any]:
    return {"push": round(each.push, 6), "direction": each.direction}


def _show_score(score: Score) -> None:
    click.echo(f"difficulty {score.difficulty:.3f} (artifact {score.artifact})")
    for tier, each in score.quality.items():
        tokens = score.expected_output_tokens[tier]
        click.echo(
            f"  {tier:<9} good answer {each.p:.3f} ({each.low:.3f} to {each.high:.3f}), about {tokens:.0f} tokens"
        )
    click.echo(
        f"  reasoning at length: about {score.expected_reasoning_tokens:.0f} tokens more, expected to change the probability "
        f"of a good answer by {score.thinking_gain:+.3f} ({'worth it' if score.thinking_helps else 'not worth it'})"
    )
    drawn = "so the difficulty lies nearer to the average than its ease does" if score.familiarity < 0.5 else ""
    click.echo(f"  familiarity {score.familiarity:.2f}{', ' if drawn else ''}{drawn}")
    if score.unfamiliar:
        click.echo(f"  unlike the training data: {', '.join(score.unfamiliar)}")


def _show_why(why: Explanation) -> None:
    click.echo(f"ease {why.ease:+.2f}, {why.usual:+.2f} in prompts of the training data; the difference ({UNIT}):")
    for each in why.parts[:SHOWN_PARTS]:
        click.echo(f"  {each.push:+.2f} {each.direction}  {each.feature}: {each.detail}")
    if rest := why.parts[SHOWN_PARTS:]:
        click.echo(f"  {sum(each.push for each in rest):+.2f}         the {len(rest)} other parts together")
    if why.words:
        words = ", ".join(f"{each.feature!r} {each.push:+.2f}" for each in why.words[:SHOWN_WORDS])
        click.echo(f"words behind the topic: {words}")
