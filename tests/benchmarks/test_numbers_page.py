"""The page of numbers says what the result files say, and the files name no place of the machine they came from."""

import json
import re

import pytest

from benchmarks import numbers_page
from benchmarks.results_file import RESULTS


def test_the_page_is_what_the_results_say() -> None:
    written = numbers_page.PAGE.read_text(encoding="utf-8")
    assert written == numbers_page.page(), "run: python -m benchmarks.numbers_page"


@pytest.mark.parametrize("name", sorted(path.name for path in RESULTS.glob("*.json")))
def test_a_result_names_its_origin_and_no_absolute_path(name: str) -> None:
    text = (RESULTS / name).read_text(encoding="utf-8")
    result = json.loads(text)
    assert re.fullmatch("[0-9a-f]{40}", result["commit"])
    assert result["machine"]["cpu"]
    assert result["command"].startswith("python ")
    assert not re.findall(r'"[^"]*?(?<![\w.:/])/(?:home|root|tmp|usr|work|opt)/[^"]*"', text)
