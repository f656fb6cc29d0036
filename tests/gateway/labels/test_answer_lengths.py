"""How long labelled answers were, as training and calibration read it from the log, on both databases."""

from __future__ import annotations

from pathlib import Path

from gateway.db.connect import Database
from gateway.db.tables import moment
from gateway.db.transaction import snapshot
from gateway.labels.queries import answer_lengths
from tests.gateway.labels.test_labels_sql import NOW, compared, deliver, request


def test_the_length_of_an_answer_is_that_of_its_text_without_what_was_thought(
    tmp_path: Path, database: Database
) -> None:
    about, shadow = request(), request(routing=None)
    unknown = request()
    odd, after_failures = request(), request(routing=None)
    pairs = (
        compared(odd, shadow_request_id=after_failures.request_id, output_tokens=3),
        compared(about, shadow_request_id=shadow.request_id, output_tokens=35),
        compared(unknown, shadow_request_id=None, output_tokens=20),
    )
    deliver(tmp_path, database, about, shadow, unknown, odd, after_failures, *pairs)
    with snapshot(database) as connection:
        found = answer_lengths(connection, None, moment(NOW - 100), moment(NOW + 100))
    # Each answer has 30 tokens of text and 5 of reasoning; of the last one nobody knows what it thought, and of the odd one
    # attempts before it thought as well.
    assert found == {
        (about.request_id, "small"): 30,
        (about.request_id, "large"): 30,
        (odd.request_id, "small"): 30,
        (unknown.request_id, "small"): 30,
        (unknown.request_id, "large"): 20,
    }
