"""A model that nobody recorded joins with forty labels, given or collected as feedback, and gets other prompts than before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.administering import until
from tests.running import KEY, Gateway, Upstream, gateway, model, upstream

EASY = [f"Tom has {n} apples and buys {n + 1} more. How many apples does he have?" for n in range(20)]
HARD = [
    f"Let $p > {n}$ be prime. Determine all integers $k$ for which the group of units modulo $p^{{{n + 2}}}$ has a subgroup of "
    f"index $k$ that is not normal in its wreath product with the symmetric group of degree {n + 3}, and prove your claim."
    for n in range(20)
]
NEW_EASY = "Anna has 7 pens and gives 3 away. How many pens does she have left?"
NEW_HARD = HARD[0].replace("symmetric", "alternating")


@pytest.fixture(scope="module")
def scripted() -> Iterator[Upstream]:
    with upstream({"newcomer": {"reply": "n"}, "large": {"reply": "l"}}) as running:
        yield running


def config(scripted: Upstream, **quality: Any) -> dict[str, Any]:
    """A cheap newcomer beside a dear premium model; every prompt keeps the floor that its request names."""
    return {
        "models": [
            model("newcomer", "economy", scripted.url, price={"input": 0.1, "output": 0.4}, **quality),
            model("large", "premium", scripted.url, price={"input": 5, "output": 20}),
        ],
        "policies": {"default": {"min_quality": 0.85, "floor": "each", "unfamiliar": "choose", "remember": "prompts"}},
    }


def post(running: Gateway, path: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{running.base_url}/{path}", headers={"authorization": f"Bearer {KEY}"}, json=body, timeout=30)


def answered_by(running: Gateway, prompt: str, floor: float) -> str:
    body = {"model": "auto", "messages": [{"role": "user", "content": prompt}], "penstock": {"min_quality": floor}}
    reply = post(running, "chat/completions", body)
    assert reply.status_code == 200, reply.text
    name: str = reply.headers["x-penstock-model"]
    return name


def routes(running: Gateway) -> dict[str, str]:
    """Where an easy prompt goes under a high floor, and a hard one under a low floor."""
    return {"easy": answered_by(running, NEW_EASY, 0.85), "hard": answered_by(running, NEW_HARD, 0.28)}


def test_forty_labels_bring_a_newcomer_the_easy_prompts_and_take_the_hard_ones_away(
    scripted: Upstream, tmp_path: Path
) -> None:
    with gateway(tmp_path / "before", config(scripted)) as running:
        assert routes(running) == {"easy": "large", "hard": "newcomer"}
    folder = tmp_path / "after"
    folder.mkdir()
    lines = [{"prompt": each, "score": 1.0} for each in EASY] + [{"prompt": each, "score": 0.0} for each in HARD]
    (folder / "labels.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    with gateway(folder, config(scripted, quality={"labels": "labels.jsonl"})) as running:
        assert routes(running) == {"easy": "newcomer", "hard": "large"}
        why = running.json("router", "explain", NEW_EASY)["policies"][0]
        told = running.command("router", "explain", NEW_EASY).stdout
    shown = {each["model"]: each for each in (*why["candidates"], *why.get("not_asked", ()))}
    assert shown["newcomer"]["judged_by"] == "40 labels of its own"
    assert "judged_by" not in shown["large"]
    assert shown["newcomer"]["quality_low"] < shown["newcomer"]["quality"] < shown["newcomer"]["quality_high"]
    assert "by 40 labels of its own, about" in told


def test_feedback_on_a_models_answers_becomes_the_file_that_it_is_judged_by(scripted: Upstream, tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    with gateway(tmp_path / "first", config(scripted)) as running:
        for prompt, score in ((EASY[n // 2], 1.0) if n % 2 else (HARD[n // 2], 0.0) for n in range(40)):
            body = {"model": "newcomer", "messages": [{"role": "user", "content": prompt}]}
            answer = post(running, "chat/completions", body)
            given = {"request_id": answer.headers["x-penstock-request-id"], "score": score}
            assert post(running, "feedback", given).status_code in (200, 202)

        def written() -> bool:
            done = running.command("router", "labels", "--model", "newcomer", check=False)
            file.write_text(done.stdout, encoding="utf-8")
            return len(done.stdout.splitlines()) == 40

        until(written)
        nothing = running.command("router", "labels", "--model", "large", check=False)
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert "the log has none of 'large'" in nothing.stderr
    with gateway(tmp_path / "second", config(scripted, quality={"labels": str(file)})) as running:
        assert routes(running) == {"easy": "newcomer", "hard": "large"}
