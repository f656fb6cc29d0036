"""`penstock router`: one object out per line in, in order, whatever the line holds."""

import json

from tests.gateway.commands.processes import penstock


def test_each_line_gives_one_score_with_all_its_parts() -> None:
    lines = [
        {"prompt": "What is 2+2?"},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Prove it."}]},
        {"prompt": ""},
    ]
    done = penstock("router", "score", "--json", stdin="".join(json.dumps(line) + "\n" for line in lines))
    assert done.returncode == 0, done.stderr
    scores = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(scores) == len(lines)
    for score in scores:
        assert 0 < score["difficulty"] < 1
        for tier in score["quality"].values():
            assert 0 <= tier["low"] <= tier["p"] <= tier["high"] <= 1
        assert set(score["expected_output_tokens"]) == set(score["quality"])
        assert score["artifact"]
        assert score["microseconds"] > 0


def test_a_line_that_cannot_be_scored_says_why_in_its_place() -> None:
    lines = [
        "nonsense",
        '{"prompt": "one", "messages": []}',
        '{"prompt": 5}',
        '{"messages": "x"}',
        "[]",
        '{"prompt": "fine"}',
    ]
    done = penstock("router", "score", "--json", stdin="\n".join(lines) + "\n")
    assert done.returncode == 1
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    assert [reply.get("line") for reply in replies] == [1, 2, 3, 4, 5, None]
    assert "not JSON" in replies[0]["error"]
    assert "Traceback" not in done.stderr


def test_an_explanation_names_what_moved_the_score() -> None:
    done = penstock("router", "explain", "Prove that there are infinitely many primes.", "--json")
    document = json.loads(done.stdout)
    assert document["score"]["difficulty"] > 0
    assert all({"feature", "value", "push"} == set(feature) for feature in document["features"])
    assert document["features"]
