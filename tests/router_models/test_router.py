"""The bundled artifact scores any request: in range, deterministic, reading a bounded part, without training libraries."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_models import TIERS, RequestText, Router, Score
from router_models.explain import PARTS
from router_models.features import NAMES
from router_models.request import READ_CHARACTERS, SAMPLES

ROUTER = Router.load()
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "user", "assistant", "tool", "developer", "?"]),
            "content": st.one_of(
                st.none(),
                st.text(),
                st.integers(),
                st.lists(
                    st.one_of(
                        st.text(),
                        st.none(),
                        st.fixed_dictionaries({"type": st.just("text"), "text": st.one_of(st.text(), st.none())}),
                        st.fixed_dictionaries({"type": st.just("image_url"), "image_url": st.none()}),
                    )
                ),
            ),
        }
    ),
    max_size=6,
)
# The same short request in thirty languages, written for this test.
LANGUAGES = [
    "What is the capital of our country?",
    "Qual é a capital do nosso país?",
    "¿Cuál es la capital de nuestro país?",
    "Quelle est la capitale de notre pays ?",
    "Was ist die Hauptstadt unseres Landes?",
    "Qual è la capitale del nostro paese?",
    "Wat is de hoofdstad van ons land?",
    "Vad är huvudstaden i vårt land?",
    "Hva er hovedstaden i landet vårt?",
    "Hvad er hovedstaden i vores land?",
    "Mikä on maamme pääkaupunki?",
    "Jaka jest stolica naszego kraju?",
    "Jaké je hlavní město naší země?",
    "Mi az országunk fővárosa?",
    "Care este capitala țării noastre?",
    "Каква е столицата на нашата страна?",
    "Какая столица нашей страны?",
    "Яка столиця нашої країни?",
    "Ποια είναι η πρωτεύουσα της χώρας μας;",
    "Ülkemizin başkenti neresi?",
    "ما هي عاصمة بلدنا؟",
    "מהי בירת המדינה שלנו?",
    "हमारे देश की राजधानी क्या है?",
    "আমাদের দেশের রাজধানী কী?",
    "நம் நாட்டின் தலைநகரம் எது?",
    "เมืองหลวงของประเทศเราคืออะไร",
    "Thủ đô của nước ta là gì?",
    "我们国家的首都是哪里?",
    "私たちの国の首都はどこですか?",
    "우리나라의 수도는 어디인가요?",
]


def assert_valid(score: Score) -> None:
    assert tuple(score.quality) == TIERS
    assert tuple(score.expected_output_tokens) == TIERS
    assert score.difficulty == pytest.approx(1.0 - score.quality["economy"].p)
    last = 0.0
    for tier in TIERS:
        each = score.quality[tier]
        assert 0.0 < each.low <= each.p <= each.high < 1.0
        assert each.p >= last
        last = each.p
        assert 1.0 <= score.expected_output_tokens[tier] <= 16_384.0
    assert 0.0 <= score.familiarity <= 1.0
    assert -1.0 <= score.thinking_gain <= 1.0
    assert 1.0 <= score.expected_reasoning_tokens <= 16_384.0
    assert score.out_of_distribution == bool(score.unfamiliar)
    json.dumps(score.as_dict(), allow_nan=False)


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_gets_a_valid_score(prompt: str) -> None:
    assert_valid(ROUTER.score_prompt(prompt))


@settings(max_examples=200, deadline=None)
@given(MESSAGES, st.booleans(), st.booleans())
def test_any_messages_get_a_valid_score(messages: list[dict[str, object]], tools: bool, json_schema: bool) -> None:
    assert_valid(ROUTER.score_messages(messages, tools=tools, json_schema=json_schema))


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1))
def test_a_prompt_and_a_lone_user_message_of_the_same_text_score_the_same(prompt: str) -> None:
    assert ROUTER.score_prompt(prompt) == ROUTER.score_messages([{"role": "user", "content": prompt}])


def test_the_same_prompt_scores_the_same_in_a_newly_loaded_router() -> None:
    prompt = "Explain why the sum of two odd numbers is even, in three sentences."
    assert Router.load().score_prompt(prompt) == ROUTER.score_prompt(prompt)


@pytest.mark.parametrize("prompt", ["", " \n\t", "\x00\x01\x1b\x7f" * 50, "\ud800\udfff", "a" * 1_000_000, "?" * 5000])
def test_strange_text_gets_a_valid_score(prompt: str) -> None:
    assert_valid(ROUTER.score_prompt(prompt))


def test_thirty_languages_get_valid_scores_of_their_own() -> None:
    scores = [ROUTER.score_prompt(prompt) for prompt in LANGUAGES]
    for score in scores:
        assert_valid(score)
    assert [prompt for prompt, score in zip(LANGUAGES, scores, strict=True) if not score.unfamiliar] == LANGUAGES[:1]
    assert len(LANGUAGES) == 30
    assert len({score.difficulty for score in scores}) > 25


def test_text_without_words_and_images_are_called_unfamiliar() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert "no_text" in ROUTER.score_prompt("").unfamiliar
    only_image = ROUTER.score_messages([{"role": "user", "content": [image]}])
    assert {"no_text", "images"} <= set(only_image.unfamiliar)
    with_text = ROUTER.score_messages([{"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]}])
    assert "images" in with_text.unfamiliar
    assert "unseen_words" in ROUTER.score_prompt("Zvorn plakti meruvo hjasken dubrelo quisnatter").unfamiliar


def test_an_unfamiliar_prompt_has_wider_intervals_than_the_same_prompt_without_the_reason() -> None:
    text = {"type": "text", "text": "A train travels 60 miles in 2 hours. What is its speed in miles per hour?"}
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    known = ROUTER.score_messages([{"role": "user", "content": [text]}])
    unknown = ROUTER.score_messages([{"role": "user", "content": [text, image]}])
    assert not known.out_of_distribution
    assert unknown.familiarity == 0.0
    for tier in TIERS:
        assert (
            unknown.quality[tier].high - unknown.quality[tier].low > known.quality[tier].high - known.quality[tier].low
        )


TRAIN = "A train travels 60 miles in 2 hours. What is its speed in miles per hour?"


@pytest.mark.parametrize(
    "facts", [{"tools": True}, {"json_schema": True}, {"tools": True, "json_schema": True}, {"turns": 3}], ids=str
)
def test_kinds_of_requests_that_the_data_lack_are_less_familiar_and_have_wider_intervals(facts: dict[str, int]) -> None:
    plain = RequestText.from_prompt(TRAIN)
    known, unlike = ROUTER.score(plain), ROUTER.score(dataclasses.replace(plain, **facts))
    assert unlike.familiarity == pytest.approx(known.familiarity * 0.5 ** len(facts))
    assert not unlike.out_of_distribution
    before, after = known.quality["economy"], unlike.quality["economy"]
    assert after.high - after.low > before.high - before.low
    assert (unlike.ease, unlike.rank) == (known.ease, known.rank)


def test_code_another_language_and_length_are_features_that_move_the_score() -> None:
    code = "def f(x):\n    return {k: v[0] for k, v in x.items() if k != 'a'}\nWhat does f do?"
    score, long = ROUTER.score_prompt(TRAIN), ROUTER.score_prompt(TRAIN * 20)
    assert {
        score.rank,
        ROUTER.score_prompt(code).rank,
        ROUTER.score_prompt(LANGUAGES[6]).rank,
        long.rank,
    }.__len__() == 4
    assert long.rank > score.rank


def test_a_calculation_gains_more_from_thinking_than_a_fact_and_takes_longer_reasoning() -> None:
    hard = ROUTER.score_prompt(
        "Determine the number of ordered triples $(a, b, c)$ with $\\gcd(a, b, c) = 1$ and $\\text{lcm}(a, b, c) = 2^3 3^5$."
    )
    fact = ROUTER.score_prompt("Which gas do plants take in from the air to make their food?")
    assert hard.thinking_gain > fact.thinking_gain
    assert hard.expected_reasoning_tokens > fact.expected_reasoning_tokens
    assert hard.thinking_helps
    assert not fact.thinking_helps


def test_a_score_carries_the_features_that_give_it_again() -> None:
    score = ROUTER.score_prompt(TRAIN)
    assert ROUTER.score_features(score.features) == score
    assert "features" not in score.as_dict()


def test_tool_only_messages_are_scored_by_their_text() -> None:
    request = RequestText.from_messages([{"role": "tool", "content": "42"}], tools=True, json_schema=True)
    assert (request.text, request.tools, request.json_schema, request.turns) == ("42", True, True, 0)
    assert_valid(ROUTER.score(request))


def test_earlier_user_messages_are_read_only_while_the_last_one_is_short() -> None:
    first, answer = {"role": "user", "content": "Translate 'dog' to German."}, {"role": "assistant", "content": "Hund"}
    short = RequestText.from_messages([first, answer, {"role": "user", "content": "And in French?"}])
    assert short.text == "Translate 'dog' to German.\nAnd in French?"
    assert short.turns == 2
    long = RequestText.from_messages([first, answer, {"role": "user", "content": "x" * 500}])
    assert long.text == "x" * 500


def test_a_huge_prompt_is_read_at_its_head_tail_and_samples_only() -> None:
    prompt = "H" * 10_000 + "m" * 80_000 + "T" * 10_000
    request = RequestText.from_prompt(prompt)
    assert len(request.text) == READ_CHARACTERS + SAMPLES + 1
    assert request.characters == 100_000
    assert request.text.startswith("H" * 2000)
    assert request.text.endswith("T" * 2000)
    assert "m" * 500 in request.text


def test_what_a_huge_prompt_says_outside_the_parts_read_does_not_change_its_score() -> None:
    filler = "word " * 20_000
    other = filler[:2500] + "PROVE" + filler[2505:]
    assert RequestText.from_prompt(other) == RequestText.from_prompt(filler)
    assert ROUTER.score_prompt(other) == ROUTER.score_prompt(filler)


@pytest.mark.parametrize(
    "hard",
    [
        "Find all functions f from the reals to the reals such that f(x^2 + f(y)) = y + f(x)^2 for all real x and y.",
        "Let $a, b, c$ be positive reals with $abc = 1$. Find the minimum of $\\sum \\frac{1}{a^3 (b + c)}$.",
        "Determine the number of ordered triples $(a, b, c)$ with $\\gcd(a, b, c) = 1$ and $\\text{lcm}(a, b, c) = 2^3 3^5$.",
    ],
)
@pytest.mark.parametrize("easy", ["What is 2+2?", "Tom has 3 apples and buys 2 more. How many apples does he have?"])
def test_olympiad_problems_are_clearly_harder_than_everyday_arithmetic(hard: str, easy: str) -> None:
    assert ROUTER.score_prompt(hard).difficulty > ROUTER.score_prompt(easy).difficulty + 0.15


APPLES = "Tom has 3 apples and buys 2 more. How many apples does he have?"
CAPITAL = "What is the capital of France?"
FUNCTIONS = (
    "Find all functions f from the reals to the reals such that f(x^2 + f(y)) = y + f(x)^2 for all real x and y."
)


@pytest.mark.parametrize("prompt", [APPLES, CAPITAL, FUNCTIONS, "", "x", "Wie lange kocht ein Ei? " * 400])
def test_the_parts_of_an_explanation_add_up_to_what_is_special_about_a_prompt(prompt: str) -> None:
    request = RequestText.from_prompt(prompt)
    found = ROUTER.explain(request)
    assert found.ease == pytest.approx(ROUTER.score(request).ease, abs=1e-2)
    assert sum(each.push for each in found.parts) == pytest.approx(found.ease - found.usual, abs=1e-6)
    # What every prompt has in common must not look like a reason: pushes that cancel each other would be far larger.
    assert sum(abs(each.push) for each in found.parts) < 5.0
    for each in (found.parts, found.words):
        pushes = [abs(one.push) for one in each]
        assert pushes == sorted(pushes, reverse=True)
    assert all(each.direction == ("easier" if each.push >= 0 else "harder") for each in found.parts)
    assert ROUTER.explain(request) == found


def test_different_prompts_are_explained_by_different_things() -> None:
    first = [ROUTER.explain(RequestText.from_prompt(prompt)).parts[0] for prompt in (APPLES, CAPITAL, FUNCTIONS)]
    assert len({(each.feature, each.detail) for each in first}) == 3
    apples = ROUTER.explain(RequestText.from_prompt(APPLES))
    assert first[0].feature == "topic"
    assert "arithmetic" in first[0].detail
    assert {"length", "numbers", "what is asked"} <= {each.feature for each in apples.parts}
    assert "apples" in {each.feature for each in apples.words}


def test_every_shape_feature_is_in_one_part_of_an_explanation() -> None:
    assert sorted(name for members in PARTS.values() for name in members) == sorted(NAMES)


def test_results_have_no_other_fields() -> None:
    """That nobody sets those there are is for the type checker to see: router_models.value."""
    score = ROUTER.score_prompt("hello")
    with pytest.raises(AttributeError):
        score.hardness = 0.0  # type: ignore[attr-defined]


def test_serving_needs_neither_scikit_learn_nor_torch_nor_pandas() -> None:
    code = (
        "import sys; from router_models import Router; Router.load().score_prompt('hello there'); "
        "print([n for n in ('sklearn', 'torch', 'pandas', 'scipy', 'pyarrow', 'gateway', 'local_engine') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
