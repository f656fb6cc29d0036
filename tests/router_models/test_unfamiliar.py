"""What the training data do not hold is recognised whatever its length, and what people write every day is not taken for it."""

from __future__ import annotations

import numpy as np
import pytest

from router_models import RequestText, Router
from router_models.batch import LASTING
from router_models.script import share_in_other_scripts
from router_models.training.calibrate import WANTED_IN_SET, familiarity_limit

ROUTER = Router.load()

# The shortest things that people say, in scripts of which the training prompts hold single letters at most.
OTHER_SCRIPTS = [
    "Привет", "Как дела?", "Здравей", "ما اسمك؟", "سلام", "你好", "你", "今何時ですか?", "はい", "안녕하세요", "네",
    "สวัสดี", "ขอบคุณ", "Γεια σου", "שלום", "नमस्ते", "হ্যালো", "გამარჯობა", "Բարեւ", "வணக்கம்", "ਸਤ", "ಹಲೋ", "ഹലോ",
    "မင်္ဂလာပါ", "ສະບາຍດີ", "ជំរាបសួរ", "ሰላም", "ᐊᐃ", "𐌰𐌱𐌲",
]  # fmt: skip
# Two to four words each.
LATIN = [
    "Kolik je hodin?", "Jak se máš?", "Hvad er klokken?", "Hoe gaat het?", "Mitä kuuluu?", "Kerro vitsi.",
    "Raconte-moi une blague.", "Quelle heure est-il ?", "Wie geht es dir?", "Wie spät ist es?", "Hány óra van?",
    "Hogy vagy?", "Che ora è?", "Puoi aiutarmi?", "Która jest godzina?", "Que horas são?", "Como vai você?",
    "Cât este ceasul?", "¿Qué hora es?", "¿Cómo estás?", "Habari yako?", "Hur mår du?", "Saat kaç?",
    "Bạn khỏe không?", "Apa kabar?", "Hva er klokka?",
]  # fmt: skip
# A single word, or words that English has as well, cannot be told apart.
NOT_TOLD_APART = ["Nasılsın?", "Come stai?", "Comment ça va ?", "Hola"]
GIBBERISH = [
    "asdf qwer", "asdf qwer zxcv", "qwx zyv", "Zvorn plakti meruvo", "zxqv wqrt plok mnbv",
    "flurbin gastrok vembly quintor", "lkjhg poiuy", "7f3a9c2e", "aGVsbG8gd29ybGQgdGhpcyBpcyBhIHRlc3Q=",
]  # fmt: skip
EVERYDAY = [
    "hi", "Hi!", "Hello!", "thanks!", "ok", "Bye!", "Who are you?", "What's up?", "What is 2+2?", "2+2?", "1+1",
    "What is 17*23?", "What is 100/4?", "3 * (4 + 5)", "sqrt(2)", "What is π?", "What is Δx?", "E = mc²", "∫ x^2 dx",
    "x^2 - 4 = 0", "∑_{n=1}^{∞} 1/n²", "café", "naïve", "What does naïve mean?", "Where is the nearest café?",
    "Who was Gödel?", "Who is Beyoncé?", "José's résumé", "Is Malmö in Sweden?", "jalapeño recipe", "🙂", "thanks 🙂",
    "👍", "def f(x): return x+1", "for i in range(10): print(i)", "print('hello')", "SELECT * FROM users;",
    '{"a": 1}', "ls -la", "What is the capital of France?", "Translate 'hello' into Spanish", "Tell me a joke",
    "pizza recipe", "Convert 5 km to miles", "Write a haiku", "Fix the grammar: he go to school yesterday",
]  # fmt: skip


@pytest.mark.parametrize("prompt", OTHER_SCRIPTS)
def test_another_script_is_unfamiliar_however_short(prompt: str) -> None:
    score = ROUTER.score_prompt(prompt)
    assert "other_script" in score.unfamiliar
    assert score.familiarity == 0.0


@pytest.mark.parametrize("prompt", LATIN)
def test_a_few_words_of_another_language_are_unfamiliar(prompt: str) -> None:
    assert ROUTER.score_prompt(prompt).unfamiliar == ("unseen_words",)


@pytest.mark.parametrize("prompt", NOT_TOLD_APART)
def test_a_single_word_of_another_language_passes(prompt: str) -> None:
    # No wish: what the documentation says of them. Whoever recognises them moves them to LATIN.
    assert ROUTER.score_prompt(prompt).unfamiliar == ()


@pytest.mark.parametrize("prompt", GIBBERISH)
def test_gibberish_is_unfamiliar(prompt: str) -> None:
    assert ROUTER.score_prompt(prompt).out_of_distribution


@pytest.mark.parametrize("prompt", EVERYDAY)
def test_everyday_requests_formulas_code_and_names_are_familiar(prompt: str) -> None:
    score = ROUTER.score_prompt(prompt)
    assert score.unfamiliar == ()
    assert score.familiarity > 0.0


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        ("plain words", 0.0),
        ("naïve café, Đà Nẵng, Ångström, ﬁne", 0.0),
        ("π and α+β, Δx in μs; ≤ ∞ ∫ → 🙂 ½ “quoted” – 100 €", 0.0),
        ("𝑥 = 𝟏", 0.0),
        ("Привет", 1.0),
        ("สวัสดี", 1.0),
        ("αβγ", 1.0),
        ("ab Да", 0.5),
        ("你a", 0.5),
        ("𠀀", 1.0),
        ("\ud800a", 0.0),
    ],
)  # fmt: skip
def test_the_share_in_other_scripts_counts_letters_and_not_signs(text: str, share: float) -> None:
    assert share_in_other_scripts(text) == share


def test_a_request_partly_in_another_script_is_judged_by_how_much() -> None:
    quoted = "What is the meaning of the Russian word мир, and how is it used in the title of the novel by Tolstoy?"
    assert ROUTER.score_prompt(quoted).unfamiliar == ()
    assert "other_script" in ROUTER.score_prompt("Translate: Какая столица Франции?").unfamiliar


def test_the_reason_is_kept_with_a_request_because_features_that_are_kept_lack_the_text() -> None:
    assert "other_script" in LASTING


def test_the_limit_of_familiarity_is_fair_to_a_small_set_among_large_ones() -> None:
    rng = np.random.default_rng(0)
    large, small = rng.uniform(0.4, 1.0, 5000), rng.uniform(0.1, 0.6, 200)
    familiarity, sets = np.concatenate((large, small)), np.repeat(["benchmarks", "everyday"], (5000, 200))
    limit = familiarity_limit(familiarity, sets)
    assert np.mean(small < limit) <= 0.02
    assert np.mean(small < np.quantile(familiarity, 0.02)) > 0.3
    # A handful of prompts does not move it.
    few = np.concatenate((large, small[: WANTED_IN_SET - 1]))
    assert familiarity_limit(few, sets[: few.size]) == np.quantile(large, 0.02)
    assert familiarity_limit(small[:20], sets[:20]) == np.quantile(small[:20], 0.02)


def test_few_words_are_not_judged_by_what_they_resemble_but_tools_still_count() -> None:
    plain, tools = RequestText.from_prompt("Hello!"), RequestText("Hello!", 6, tools=True)
    assert ROUTER.score(tools).familiarity == pytest.approx(ROUTER.score(plain).familiarity / 2)
