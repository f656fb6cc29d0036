"""The audit of the main job finds what is missing, double or wrong; the choice of prompts is fixed and held out."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from benchmarks import job_prompts
from benchmarks.job_books import Bill, Billed, Books, owed, total
from benchmarks.job_client import Arm, Finished
from benchmarks.recorded_answers import TIER_MODELS, Answer, Prompt, RecordedAnswers, recorded_model
from router_models.training.data import is_held_out


def recordings(datasets: dict[str, int]) -> RecordedAnswers:
    """As many invented prompts per data set, each answered by all tiers."""
    prompts, by_prompt = [], {}
    for dataset, count in datasets.items():
        for place in range(count):
            prompt = Prompt(dataset, f"p{place}", f"{dataset} question {place}", f"{place:016x}", 20)
            prompts.append(prompt)
            models = [recorded_model(tier, dataset) or "" for tier in TIER_MODELS]
            by_prompt[prompt.text] = {
                model: Answer(dataset, prompt.prompt_id, model, f"{model} says {place}", 20, 30, None, 1.0)
                for model in models
            }
    return RecordedAnswers(tuple(prompts), by_prompt, ())


RECORDED = recordings({"gsm8k_test": 2})


def reply(number: int, outcome: str = "delivered") -> dict[str, Any]:
    tokens = {"input_tokens": 20, "cached_tokens": 5, "output_tokens": 30, "reasoning_tokens": 10}
    return {"id": f"reply-{number}", "model": "medium", "outcome": outcome, **tokens}


def finished(number: int) -> Finished:
    prompt = RECORDED.prompts[number]
    answer = RECORDED.find(prompt.text, "medium")
    assert answer is not None
    names = (f"request-{number}", f"reply-{number}", "standard", "medium")
    return Finished(prompt, number % 2 == 1, *names, answer.text, 20, 30, None, 0.1)


def billed(number: int) -> Billed:
    return Billed(f"request-{number}", "auto", "completed", owed(reply(number)))


def sound_books(killed: bool = False) -> Books:
    arm = Arm("auto", "auto", finished=[finished(0), finished(1)])
    bills = [billed(0), billed(1)]
    return Books(arm, killed, [reply(0), reply(1)], bills, total(one.bill for one in bills))


def failed(books: Books) -> set[str]:
    return {name for name, holds in books.checks(RECORDED).items() if not holds}


def test_what_is_owed_is_every_bucket_times_its_price_in_whole_pico_dollars() -> None:
    # medium: input 0.40, cached input 0.20, output and reasoning 0.40 USD per 1M tokens; the tenant pays 20 % more
    cost = 15 * 400_000 + 5 * 200_000 + 20 * 400_000 + 10 * 400_000
    assert owed(reply(0)) == Bill(1, 15, 5, 20, 10, cost, cost * 6 // 5)


def test_books_that_agree_pass_every_check() -> None:
    assert failed(sound_books()) == set()
    assert failed(sound_books(killed=True)) == set()


def test_a_reply_that_was_not_billed_is_found() -> None:
    books = sound_books()
    assert "every finished reply is billed exactly once" in failed(replace(books, billed=books.billed[:1]))


def test_a_reply_that_was_billed_twice_is_found() -> None:
    books = sound_books(killed=True)
    doubled = [*books.billed, books.billed[0]]
    wrong = failed(replace(books, billed=doubled, reported=total(one.bill for one in doubled)))
    assert wrong == {"every finished reply is billed exactly once", "nothing is billed that the upstream did not send"}


def test_a_token_in_the_wrong_bucket_is_found() -> None:
    books = sound_books()
    shifted = replace(books.billed[0], bill=replace(books.billed[0].bill, output=29, reasoning=1))
    assert "every bill is the upstream's count times the price" in failed(
        replace(books, billed=[shifted, books.billed[1]])
    )


def test_a_cost_header_that_is_one_pico_dollar_off_is_found() -> None:
    books = sound_books()
    charge = books.billed[0].bill.charge
    right = [replace(books.arm.finished[0], cost_usd=f"{charge / 10**12:.12f}"), books.arm.finished[1]]
    wrong = [replace(books.arm.finished[0], cost_usd=f"{(charge + 1) / 10**12:.12f}"), books.arm.finished[1]]
    assert failed(replace(books, arm=Arm("auto", "auto", finished=right))) == set()
    assert failed(replace(books, arm=Arm("auto", "auto", finished=wrong))) == {"the cost header is the charge"}


def test_another_text_than_the_recorded_one_is_found() -> None:
    books = sound_books()
    changed = [replace(books.arm.finished[0], text="something else"), books.arm.finished[1]]
    assert failed(replace(books, arm=Arm("auto", "auto", finished=changed))) == {"every text is the recorded one"}


def test_a_report_that_is_not_the_sum_of_the_bills_is_found() -> None:
    assert failed(replace(sound_books(), reported=Bill())) == {"penstock usage is the sum of the bills"}


def test_prompts_are_chosen_by_shares_held_out_and_the_same_each_time() -> None:
    recorded = recordings(dict.fromkeys(job_prompts.SHARES, 200))
    chosen = job_prompts.choose(recorded, 50, seed=3)
    assert chosen == job_prompts.choose(recorded, 50, seed=3)
    assert chosen != job_prompts.choose(recorded, 50, seed=4)
    assert Counter(prompt.dataset for prompt in chosen) == {
        name: round(50 * part) for name, part in job_prompts.SHARES.items()
    }
    assert all(is_held_out(prompt.dataset, prompt.stem_key) for prompt in chosen)
    assert len({(prompt.dataset, prompt.prompt_id) for prompt in chosen}) == 50


def test_more_prompts_than_there_are_is_an_error_that_names_the_set() -> None:
    with pytest.raises(ValueError, match="'gsm8k_test' has 2 usable prompts, 20 are wanted"):
        job_prompts.choose(RECORDED, 50, seed=0)
