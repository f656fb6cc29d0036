"""How likely drafted tokens are kept: learned from what became of drafts, and from how sure their drafter was of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from local_engine.request import Request

_MEMORY = 0.96  # weight of older drafts against a new one
_FIRST_RATE = 0.6  # acceptance before anything is known
_FIRST_WEIGHT = 4.0
_REQUEST_WEIGHT = 6.0  # tries after which a request's own record counts as much as everybody's
_TRUST_MEMORY = 0.995
_FIRST_TRUST = 32.0  # tries for which a drafter's own chances are believed as they are
_SUREST = 0.99


@dataclass(slots=True)
class Rate:
    """How often something tried succeeded, older tries forgotten slowly."""

    tried: float = _FIRST_WEIGHT
    kept: float = _FIRST_WEIGHT * _FIRST_RATE

    def observe(self, kept: float, tried: float = 1.0) -> None:
        """One more try, or the part of one that counts."""
        self.tried = self.tried * _MEMORY + tried
        self.kept = self.kept * _MEMORY + kept

    @property
    def value(self) -> float:
        """Between 0 and 1."""
        return self.kept / self.tried


@dataclass(slots=True)
class Trust:
    """Tokens kept against those that a drafter's own chances promised: a drafter may be too sure, or too shy."""

    promised: float = _FIRST_TRUST
    kept: float = _FIRST_TRUST

    def observe(self, chance: float, kept: bool) -> None:
        """A token its drafter gave this chance."""
        self.promised = self.promised * _TRUST_MEMORY + chance
        self.kept = self.kept * _TRUST_MEMORY + kept


class Acceptance:
    """Chance that a draft's token is kept if those before it are.

    By what its drafter said of this very token, where it says such things; else, and before anything is drafted, by kind
    and position, and by request and kind.
    """

    def __init__(self) -> None:
        self._by_place: dict[tuple[str, int], Rate] = {}
        self._by_request: dict[int, dict[str, Rate]] = {}
        self._trust: dict[str, Trust] = {}

    def observe(self, request: Request, kind: str, drafted: int, accepted: int) -> None:
        """The first `accepted` of `drafted` tokens were kept; those behind the first rejected one say nothing."""
        mine = self._record(request, kind)
        for place in range(min(drafted, accepted + 1)):
            self._by_place.setdefault((kind, place), Rate()).observe(place < accepted)
            mine.observe(place < accepted)

    def foresee(self, request: Request, kind: str, chances: Sequence[float]) -> None:
        """A draft was made whose drafter gives its tokens these `chances`, whether they are computed or not."""
        mine, before = self._record(request, kind), 1.0
        for place, after in enumerate(self.believed(kind, chances)):
            self._by_place.setdefault((kind, place), Rate()).observe(after, before)
            mine.observe(after, before)
            before = after

    def judge(self, kind: str, chances: Sequence[float], drafted: int, accepted: int) -> None:
        """The first `accepted` of `drafted` tokens with such `chances` were kept."""
        trust = self._trust.setdefault(kind, Trust())
        for place in range(min(drafted, accepted + 1)):
            trust.observe(chances[place], place < accepted)

    def believed(self, kind: str, chances: Sequence[float]) -> list[float]:
        """Chance that the first, the first two, ... tokens are all kept, by what their drafter says."""
        trust = self._trust.get(kind)
        share = 1.0 if trust is None else trust.kept / trust.promised
        product, survival = 1.0, []
        for chance in chances:
            product *= min(_SUREST, chance * share)
            survival.append(product)
        return survival

    def survival(self, request: Request, kind: str, count: int) -> list[float]:
        """The same of `count` tokens that nobody has spoken about."""
        mine = self._by_request.get(request.id, {}).get(kind)
        chances, product, rate = [], 1.0, _FIRST_RATE
        for place in range(count):
            general = self._by_place.get((kind, place))
            if general is not None:
                rate = general.value
            chance = rate
            if mine is not None:
                chance = (mine.kept + _REQUEST_WEIGHT * rate) / (mine.tried + _REQUEST_WEIGHT)
            product *= chance
            chances.append(product)
        return chances

    def forget(self, request: Request) -> None:
        """The request has ended."""
        self._by_request.pop(request.id, None)

    def _record(self, request: Request, kind: str) -> Rate:
        return self._by_request.setdefault(request.id, {}).setdefault(kind, Rate(0.0, 0.0))
