"""For any body, price and usage within the request's limits, what is charged never exceeds what was held."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.billing.cost import price_usage, rate_usage
from gateway.limits.estimate import worst_case
from gateway.types import Usage
from tests.builders import catalog, model

prices = st.integers(min_value=0, max_value=100)


@st.composite
def models(draw: st.DrawFn) -> Any:
    names = ("input", "output", "cached_input", "cache_write", "cache_write_1h", "reasoning")
    price = {name: draw(prices) for name in names}
    return catalog(model("m", price=price)).models[0]


@given(
    models(),
    st.text(max_size=300),
    st.integers(min_value=1, max_value=5000),
    st.integers(min_value=1, max_value=4),
    st.data(),
)
def test_the_charge_never_exceeds_the_hold(
    chosen: Any, text: str, limit: int, choices: int, data: st.DataObject
) -> None:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": limit, "n": choices}
    held = worst_case(body, chosen, chosen.price)
    # Byte-level tokenizers make at most one token per byte; templates add a few per message.
    read = data.draw(st.integers(min_value=0, max_value=len(text.encode()) + 8))
    cached = data.draw(st.integers(min_value=0, max_value=read))
    written = data.draw(st.integers(min_value=0, max_value=read - cached))
    wrote = data.draw(st.integers(min_value=0, max_value=limit * choices))
    thought = data.draw(st.integers(min_value=0, max_value=wrote))
    usage = Usage(
        input=read - cached - written,
        cache_read=cached,
        cache_write_5m=written,
        output=wrote - thought,
        reasoning=thought,
    )
    # Every line is rounded by itself, up by less than a pico-dollar.
    assert price_usage(usage, chosen.price) <= held.amount + 5
    assert price_usage(usage, chosen.price) == rate_usage(usage, chosen.price).total
