"""The page of numbers says what the result files say, and the files name no place of the machine they came from."""

import json
import re

from benchmarks import numbers_page
from benchmarks.results_file import RESULTS


def test_the_page_is_what_the_results_say() -> None:
    written = numbers_page.PAGE.read_text(encoding="utf-8")
    assert written == numbers_page.page(), "run: python -m benchmarks.numbers_page"


def test_every_result_names_its_origin_and_no_absolute_path() -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in RESULTS.glob("*.json")}
    assert texts, "no results are recorded; run: sh benchmarks/record_all.sh DATA"
    for name, text in texts.items():
        result = json.loads(text)
        assert re.fullmatch("[0-9a-f]{40}", result["commit"]), name
        assert result["machine"]["cpu"], name
        assert result["command"].startswith("python "), name
        assert not re.findall(r'"[^"]*?(?<![\w.:/])/(?:home|root|tmp|usr|work|opt)/[^"]*"', text), name
