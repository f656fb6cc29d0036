"""What one's own prompts must not repeat: anything that another source keeps for tests, even with words put around it."""

from __future__ import annotations

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from router_models.labelled import LabelledAnswer
from router_models.training.data import Source, Tables, together
from router_models.training.overlap import WORDS_IN_A_ROW, repeating
from router_models.training.traffic import left_out, traffic_source

WORDS = st.text(alphabet="abcdefg", min_size=1, max_size=6)
RUNS = st.lists(WORDS, min_size=WORDS_IN_A_ROW, max_size=30)
QUESTION = (
    "A baker sells forty loaves before noon, half as many after it, and gives three to the shelter. How many are left?"
)
HELD_OUT, FOR_PROMISES, TRAINED = "000000000000000a", "000000000000000b", "0000000000000001"


def public(dataset: str, stem: str, prompt: str = QUESTION) -> Source:
    """One recorded prompt, whose source has looked for overlaps and found none."""
    prompts = pd.DataFrame(
        [(dataset, "1", prompt, "maths|made-up", stem)],
        columns=["dataset", "prompt_id", "prompt", "category", "stem_key"],
    )
    outcomes = pd.DataFrame({"dataset": [], "prompt_id": [], "model": [], "score": [], "out_tokens": []})
    return Source(prompts, outcomes, pd.DataFrame({"dataset": [], "prompt_id": []}, dtype=str))


def own(*prompts: str) -> Source:
    return traffic_source([LabelledAnswer(prompt, "economy", 1.0, "own", 30.0) for prompt in prompts])


def used(tables: Tables) -> int:
    """How many prompts of one's own are trained on or test promises."""
    mine = tables.prompts["dataset"].str.startswith("own/")
    return int((mine & (tables.prompts["trainable"] | tables.prompts["for_promises"])).sum())


def test_an_evaluation_question_with_words_around_it_is_left_out_of_ones_own_prompts() -> None:
    wrapped = [f"Please help me with number {n}: {QUESTION.upper()}" for n in range(20)]
    tables = together([public("gsm8k_test", TRAINED), own(*wrapped)])
    assert left_out(tables) == 20
    assert used(tables) == 0


def test_what_other_sources_keep_for_tests_is_left_out_and_what_they_train_on_is_not() -> None:
    wrapped = [f"Please help me with number {n}: {QUESTION}" for n in range(20)]
    for stem in (HELD_OUT, FOR_PROMISES):
        assert left_out(together([public("mmlu_pro", stem), own(*wrapped)])) == 20
    trained = together([public("mmlu_pro", TRAINED), own(*wrapped)])
    assert left_out(trained) == 0
    assert used(trained) > 10


def test_ones_own_prompts_may_begin_alike() -> None:
    alike = [f"{QUESTION} This is number {n}." for n in range(60)]
    tables = together([own(*alike)])
    assert tables.prompts["held_out"].any()
    assert left_out(tables) == 0


def test_the_list_that_a_source_brings_is_taken_as_it_is() -> None:
    tables = together([public("gsm8k_test", TRAINED), public("mmlu_pro", TRAINED[:-1] + "2", f"Again: {QUESTION}")])
    assert tables.prompts.set_index("dataset").loc["mmlu_pro", "trainable"]


def test_no_prompts_of_ones_own_repeat_nothing() -> None:
    assert left_out(together([public("gsm8k_test", TRAINED), own()])) == 0


@given(RUNS, st.lists(WORDS, max_size=5), st.lists(WORDS, max_size=5))
def test_a_text_is_found_whatever_stands_around_it(text: list[str], before: list[str], after: list[str]) -> None:
    around = " ".join([*before, *text, *after]).upper()
    assert repeating([around], [", ".join(text)]) == [True]


@given(st.lists(WORDS, max_size=WORDS_IN_A_ROW - 1))
def test_a_text_of_fewer_words_repeats_nothing(text: list[str]) -> None:
    assert repeating([" ".join(text)], [" ".join(text)]) == [False]
