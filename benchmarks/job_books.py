"""The audit of the main job: what the upstream delivered, what clients got, what was billed; equal or named as not."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from decimal import Decimal
from typing import Any

from benchmarks.job_client import Arm, Finished
from benchmarks.job_gateway import MARKUP_PERCENT, pico_per_token
from benchmarks.recorded_answers import RecordedAnswers

PICO_PER_USD = 10**12


@dataclass(frozen=True)
class Bill:
    """Tokens in disjoint buckets and money in pico-USD: `cost` is the provider's, `charge` the tenant's."""

    requests: int = 0
    input: int = 0
    cache_read: int = 0
    output: int = 0
    reasoning: int = 0
    cost: int = 0
    charge: int = 0

    def __add__(self, other: "Bill") -> "Bill":
        mine, theirs = asdict(self), asdict(other)
        return Bill(**{name: mine[name] + theirs[name] for name in mine})


@dataclass(frozen=True)
class Billed:
    """One request in the gateway's books: tokens from its rated lines, money from its ledger entries."""

    request_id: str
    key_name: str
    outcome: str
    bill: Bill


def owed(reply: Mapping[str, Any]) -> Bill:
    """What one reply of the upstream must cost, from its own count and the price list alone."""
    model = reply["model"]
    buckets = {
        "input": reply["input_tokens"] - reply["cached_tokens"],
        "cache_read": reply["cached_tokens"],
        "output": reply["output_tokens"] - reply["reasoning_tokens"],
        "reasoning": reply["reasoning_tokens"],
    }
    price_names = {"input": "input", "cache_read": "cached_input", "output": "output", "reasoning": "reasoning"}
    cost = sum(tokens * pico_per_token(model, price_names[bucket]) for bucket, tokens in buckets.items())
    # Exact: a price of at most two decimals per 1M tokens is a multiple of 10,000 pico-USD per token.
    return Bill(requests=1, cost=cost, charge=cost * (100 + MARKUP_PERCENT) // 100, **buckets)


def total(bills: Iterable[Bill]) -> Bill:
    """The sum of bills."""
    return sum(bills, Bill())


@dataclass(frozen=True)
class Books:
    """The counts of one arm of the job. `killed` says whether the gateway was killed during it.

    `replies` is the upstream's own list, `billed` the ledger's requests, `reported` what `penstock usage` says of them.
    """

    arm: Arm
    killed: bool
    replies: list[dict[str, Any]]
    billed: list[Billed]
    reported: Bill

    def delivered(self) -> Bill:
        """What the upstream delivered to the last byte."""
        return total(owed(reply) for reply in self.replies if reply["outcome"] == "delivered")

    def sent(self) -> Bill:
        """The same with the replies whose reader left before the end (only a killed gateway leaves)."""
        return total(owed(reply) for reply in self.replies)

    def checks(self, recorded: RecordedAnswers) -> dict[str, bool]:
        """Every statement the job stands on, by name."""
        bill = total(one.bill for one in self.billed)
        times = Counter(one.request_id for one in self.billed)
        bill_of = {one.request_id: one.bill for one in self.billed}
        reply_of = {reply["id"]: reply for reply in self.replies}
        finished = self.arm.finished
        found = {
            "every text is the recorded one": all(_is_recorded(one, reply_of, recorded) for one in finished),
            "every finished reply is billed exactly once": all(times[one.request_id] == 1 for one in finished),
            "every bill is the upstream's count times the price": all(
                one.reply_id in reply_of and bill_of.get(one.request_id) == owed(reply_of[one.reply_id])
                for one in finished
            ),
            "the cost header is the charge": all(
                Decimal(one.cost_usd) * PICO_PER_USD == bill_of[one.request_id].charge
                for one in finished
                if one.cost_usd
            ),
            "penstock usage is the sum of the bills": self.reported == bill,
        }
        if self.killed:
            answered = total(one.bill for one in self.billed if one.outcome != "interrupted")
            found["nothing is billed that the upstream did not send"] = _at_most(answered, self.sent())
            found["an interrupted request costs nothing"] = bill == replace(answered, requests=bill.requests)
        else:
            found["the bills are what the upstream delivered"] = bill == self.delivered()
        return found


def _is_recorded(one: Finished, reply_of: Mapping[str, Mapping[str, Any]], recorded: RecordedAnswers) -> bool:
    answer = recorded.find(one.prompt.text, one.model)
    reply = reply_of.get(one.reply_id)
    return answer is not None and reply is not None and (answer.text, one.model) == (one.text, reply["model"])


def _at_most(one: Bill, other: Bill) -> bool:
    return all(getattr(one, field.name) <= getattr(other, field.name) for field in fields(Bill))


def reported_bill(row: Mapping[str, Any]) -> Bill:
    """One row of `penstock usage --json` as a bill."""
    buckets = row["buckets"]
    return Bill(
        requests=row["requests"],
        input=buckets["input"],
        cache_read=buckets["cache_read"],
        output=buckets["output"],
        reasoning=buckets["reasoning"],
        cost=row["cost_pico"],
        charge=row["charge_pico"],
    )
