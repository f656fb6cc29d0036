"""What every scorer keeps, whoever made it: any text gets an ordered, bounded, repeatable score that names its artifact."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router_models import TIERS, Router
from router_models.labelled import LabelledAnswer, gather
from router_models.recalibrate import recalibrate
from router_models.router import Score
from router_models.training.data import load_tables, read_source, together
from router_models.training.traffic import traffic_source
from router_models.training.train import train
from router_models.transformer_embedder import transformer_embedder
from tests.router_models.small_tables import made_up
from tests.router_models.tiny_sentence_model import save_tiny_model

LANGUAGES = {
    "Arabic": "ما هي عاصمة فرنسا؟",
    "Bengali": "ফ্রান্সের রাজধানী কী?",
    "Bulgarian": "Коя е столицата на Франция?",
    "Chinese": "法国的首都是哪里?",
    "Czech": "Jaké je hlavní město Francie?",
    "Danish": "Hvad er Frankrigs hovedstad?",
    "Dutch": "Wat is de hoofdstad van Frankrijk?",
    "English": "What is the capital of France?",
    "Finnish": "Mikä on Ranskan pääkaupunki?",
    "French": "Quelle est la capitale de la France ?",
    "Georgian": "რომელია საფრანგეთის დედაქალაქი?",
    "German": "Wie heißt die Hauptstadt von Frankreich?",
    "Greek": "Ποια είναι η πρωτεύουσα της Γαλλίας;",
    "Gujarati": "ફ્રાન્સની રાજધાની કઈ છે?",
    "Hebrew": "מהי בירת צרפת?",
    "Hindi": "फ़्रांस की राजधानी क्या है?",
    "Hungarian": "Mi Franciaország fővárosa?",
    "Italian": "Qual è la capitale della Francia?",
    "Japanese": "フランスの首都はどこですか?",
    "Korean": "프랑스의 수도는 어디입니까?",
    "Persian": "پایتخت فرانسه کجاست؟",
    "Polish": "Jaka jest stolica Francji?",
    "Portuguese": "Qual é a capital da França?",
    "Romanian": "Care este capitala Franței?",
    "Russian": "Какая столица Франции?",
    "Spanish": "¿Cuál es la capital de Francia?",
    "Swahili": "Mji mkuu wa Ufaransa ni upi?",
    "Tamil": "பிரான்சின் தலைநகரம் எது?",
    "Thai": "เมืองหลวงของฝรั่งเศสคืออะไร",
    "Turkish": "Fransa'nın başkenti neresidir?",
    "Ukrainian": "Яка столиця Франції?",
    "Vietnamese": "Thủ đô của Pháp là gì?",
}
# Four of the six words of the Portuguese question are in the training prompts as well.
SEEN_AS_ENGLISH = {"English", "Portuguese"}
TEXTS = {
    "empty": "",
    "white space": " \t\r\n\u00a0\u2003",
    "one megabyte": "The quick brown fox jumps over 12 lazy dogs. " * 23_302,
    "one megabyte without a space": "a" * 1_048_576,
    "binary": bytes(range(256)).decode("latin-1") * 20,
    "null characters": "\x00" * 100,
    "half a surrogate pair": "\ud800 and \udfff",
    "joined emoji": "👩‍👩‍👧‍👦" * 50,
    "right to left marks": "\u202e\u202dabc\u2066",
    "JSON": json.dumps({"prompt": ["x"] * 100}),
    "a number": "7",
    "pleading": "Only the most capable model can answer this. " * 20,
    **LANGUAGES,
}
MESSAGES: dict[str, list[Any]] = {
    "none": [],
    "only a tool result": [{"role": "tool", "tool_call_id": "1", "content": "42"}],
    "only an image": [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}
    ],
    "only a system prompt": [{"role": "system", "content": "Be brief."}],
    "a call without text": [{"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]}],
    "content of odd types": [
        {"role": "user", "content": 5},
        {"role": "user", "content": [None, 3, {"text": 4}]},
        "text",
        None,
    ],
    "no content at all": [{}],
}


def bundled(folder: Path) -> Router:
    return Router.load()


def trained_in_the_test(folder: Path) -> Router:
    train(load_tables(made_up(folder / "tables")), folder / "trained.npz")
    return Router.load(folder / "trained.npz")


def trained_on_labels_too(folder: Path) -> Router:
    answers = [
        LabelledAnswer(f"What about {n} and {m}?", "economy", float(n % 2), "own", 30.0)
        for n in range(20)
        for m in "abcdef"
    ]
    train(together([read_source(made_up(folder / "tables")), traffic_source(answers)]), folder / "both.npz")
    return Router.load(folder / "both.npz")


def calibrated(folder: Path) -> Router:
    """On labels that say the opposite of what is likely: strong models fail, weak ones never do."""
    answers = [
        LabelledAnswer(f"Question {n}: what is {n} times {n + 2}?", tier, score, output_tokens=5.0)
        for n in range(120)
        for tier, score in (("economy", 1.0), ("premium", 0.0))
    ]
    start = Router.load()
    recalibrate(start.artifact, gather(start, answers)).save(folder / "own.npz")
    return Router.load(folder / "own.npz")


def with_a_sentence_model(folder: Path) -> Router:
    table = transformer_embedder(str(save_tiny_model(folder / "model")))
    train(load_tables(made_up(folder / "tables", per_pattern=30)), folder / "transformer.npz", table=table)
    return Router.load(folder / "transformer.npz", table)


MAKERS: tuple[Callable[[Path], Router], ...] = (
    bundled,
    trained_in_the_test,
    trained_on_labels_too,
    calibrated,
    with_a_sentence_model,
)


@pytest.fixture(scope="module", params=MAKERS, ids=lambda make: make.__name__.replace("_", " "))
def scorer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Router:
    made: Router = request.param(tmp_path_factory.mktemp("scorer"))
    return made


def check(score: Score, scorer: Router) -> None:
    assert tuple(score.quality) == TIERS == tuple(score.expected_output_tokens)
    for each in score.quality.values():
        assert 0.0 < each.low <= each.p <= each.high < 1.0
    for weaker, stronger in pairwise(TIERS):
        for part in ("p", "low", "high"):
            assert getattr(score.quality[weaker], part) <= getattr(score.quality[stronger], part)
    assert score.difficulty == pytest.approx(1.0 - score.quality["economy"].p)
    assert all(1.0 <= tokens <= 16_384.0 for tokens in score.expected_output_tokens.values())
    assert 0.0 <= score.familiarity <= 1.0
    assert isfinite(score.rank)
    assert isfinite(score.ease)
    assert score.artifact == scorer.version
    document = json.loads(json.dumps(score.as_dict(), allow_nan=False))
    assert document["artifact"] == scorer.version
    assert set(document["quality"]) == set(TIERS)


@pytest.mark.parametrize("name", TEXTS)
def test_any_text_is_scored(scorer: Router, name: str) -> None:
    check(scorer.score_prompt(TEXTS[name]), scorer)


@pytest.mark.parametrize("name", sorted(LANGUAGES.keys() - SEEN_AS_ENGLISH))
def test_a_short_question_in_another_language_is_called_unfamiliar(scorer: Router, name: str) -> None:
    score = scorer.score_prompt(LANGUAGES[name])
    assert {"other_script", "unseen_words"} & set(score.unfamiliar)
    assert score.familiarity == 0.0


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("more", [{}, {"tools": True}, {"json_schema": True}], ids=str)
def test_any_messages_are_scored(scorer: Router, name: str, more: dict[str, bool]) -> None:
    check(scorer.score_messages(MESSAGES[name], **more), scorer)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(), max_size=400))
def test_whatever_is_written_is_scored(scorer: Router, text: str) -> None:
    check(scorer.score_prompt(text), scorer)


@pytest.mark.parametrize("name", ["empty", "binary", "English", "Japanese", "one megabyte"])
def test_the_same_text_gets_the_same_score_whatever_came_between(scorer: Router, name: str) -> None:
    first = scorer.score_prompt(TEXTS[name])
    scorer.score_prompt("Something else, with words like zyzzyva that nobody cut before.")
    assert scorer.score_prompt(TEXTS[name]) == first
    assert scorer.score_messages([{"role": "user", "content": TEXTS[name]}]) == first


def test_what_has_no_text_is_called_unfamiliar(scorer: Router) -> None:
    assert scorer.score_prompt("").out_of_distribution
    assert "no_text" in scorer.score_prompt("").unfamiliar
    assert "images" in scorer.score_messages(MESSAGES["only an image"]).unfamiliar


def test_a_scorer_says_what_it_was_made_from(scorer: Router) -> None:
    card = json.loads(json.dumps(scorer.card, allow_nan=False))
    assert card["prompts"] > 0
    assert card["calibration_sample"]["prompts"] == len(scorer.artifact.sample)
    assert card["embedder"]["version"] == scorer.artifact.embedder.version
    assert scorer.version.rpartition("-")[0]
