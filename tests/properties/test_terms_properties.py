"""What tenants, keys and requests add to a policy can only make it tighter, in whatever order it is put together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.callers import NO_TERMS, Caller, Terms
from gateway.catalog_owners import terms_of
from gateway.chat.request import Options
from gateway.chat.route import terms_for
from gateway.config_policies import Policy

shares = st.none() | st.floats(min_value=0, max_value=1)
costs = st.none() | st.integers(min_value=0, max_value=10**12)
regions = st.none() | st.frozensets(st.sampled_from(["eu", "us", "ch"]))
terms = st.builds(Terms, shares, costs, shares, st.booleans(), regions)
options = st.builds(Options, max_cost=costs, min_quality=shares, local_only=st.booleans(), regions=regions)


def is_tighter(one: Terms, other: Terms) -> bool:
    """Whether whatever `one` allows is allowed by `other` too."""
    return (
        (other.min_quality is None or (one.min_quality is not None and one.min_quality >= other.min_quality))
        and (other.max_cost is None or (one.max_cost is not None and one.max_cost <= other.max_cost))
        and (other.max_premium_share is None
             or (one.max_premium_share is not None and one.max_premium_share <= other.max_premium_share))
        and (one.local_only or not other.local_only)
        and (other.regions is None or (one.regions is not None and one.regions <= other.regions))
    )  # fmt: skip


@given(terms, terms, terms)
def test_terms_are_put_together_in_any_order(one: Terms, two: Terms, three: Terms) -> None:
    assert one.and_(two) == two.and_(one)
    assert one.and_(two).and_(three) == one.and_(two.and_(three))
    assert one.and_(one) == one.and_(NO_TERMS) == NO_TERMS.and_(one) == one


@given(terms, terms)
def test_both_together_are_tighter_than_each(one: Terms, two: Terms) -> None:
    assert is_tighter(one.and_(two), one)
    assert is_tighter(one.and_(two), two)


@given(options, terms, st.booleans(), regions, shares)
def test_no_request_gets_around_its_key_or_its_policy(
    asked: Options, of_key: Terms, local_only: bool, places: frozenset[str] | None, share: float | None
) -> None:
    policy = Policy(local_only=local_only, regions=tuple(sorted(places)) if places else None, max_premium_share=share)
    found = terms_for(asked, Caller("id", "name", "default", terms=of_key), policy, terms_of(policy))
    assert is_tighter(found, of_key)
    assert is_tighter(found, terms_of(policy))
    assert found.min_quality is not None
    if asked.min_quality is None:
        assert found.min_quality >= policy.min_quality
