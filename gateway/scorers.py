"""Which trained artifact scores a request: the champion of its policy, or its challenger for a share of the requests.

Assignments are read from SQL every few seconds. What cannot be loaded changes nothing: the artifact before it goes on, the log
and a metric say so. Files are checked here before they are kept, too: whoever else reads artifacts goes through this file.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
import time
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any
from zlib import crc32

from gateway.db.connect import Database
from gateway.db.transaction import snapshot
from gateway.errors import InvalidValue
from gateway.routing.artifacts.queries import (
    BUNDLED,
    Assignment,
    artifact_bytes,
    artifact_rows,
    assignment_rows,
    latest_drift,
)
from gateway.routing.ask import Scorer
from router_models.artifact import load
from router_models.errors import ArtifactError
from router_models.router import Router
from router_models.tiers import TIERS

logger = logging.getLogger(__name__)
REFRESH_SECONDS = 2.0
"""How long a change of an assignment may take to arrive."""
RETRY_SECONDS = 60.0
"""An artifact that cannot be used is not read again before."""
DRIFT_SECONDS = 60.0
DRIFT_COUNTS_SECONDS = 86_400.0
MOST_LOADED = 4
"""Artifacts in memory beside the bundled one; for the moment of a change the ones before are there as well."""
LARGEST_BYTES = 32 * 1024 * 1024
"""Of a file, and of what is packed in it."""
PROBES = (
    "What is 2+2?",
    "",
    "Prove that every bounded sequence of real numbers has a convergent subsequence, and give an example.",
    "Écris une lettre à ma banque. 请把这句话翻译成英文。 " * 40,
    "def f(x):\n    return x * 2\n\x00\ufffd",
)


@dataclass(frozen=True, slots=True)
class CheckedArtifact:
    """A file that this release can serve with, and what it says of itself."""

    version: str
    sha256: str
    content: bytes
    card: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Served:
    """What one policy scores with. Requests whose hash is below `below` (of 2^32) go to the challenger."""

    champion: Scorer
    challenger: Scorer | None = None
    below: int = 0


def open_artifact(content: bytes, name: str) -> Router:
    """A router of these bytes, shown to work. Raises ArtifactError or InvalidValue that names it and says what is wrong."""
    if len(content) > LARGEST_BYTES or _unpacked(content) > LARGEST_BYTES:
        raise InvalidValue(f"artifact {name!r} is larger than {LARGEST_BYTES // 2**20} MiB.", param="artifact")
    router = Router(load(Path(name), content=content))
    for probe in PROBES:
        score = router.score_prompt(probe)
        chances = [score.quality[tier].p for tier in TIERS]
        lengths = (*score.expected_output_tokens.values(), score.expected_reasoning_tokens)
        numbers = (*chances, *lengths, score.familiarity, score.rank)
        if not all(map(isfinite, numbers)) or chances != sorted(chances) or not 0 <= chances[0] <= chances[-1] <= 1:
            raise InvalidValue(
                f"artifact {name!r} gives the prompt {probe[:40]!r} the qualities {chances!r}, which are no "
                "probabilities that grow with the tier. Train it again.",
                param="artifact",
            )
    return router


def check_artifact(content: bytes, name: str) -> CheckedArtifact:
    """Refuse a file that no gateway of this release could serve with. Raises InvalidValue that says why."""
    try:
        router = open_artifact(content, name)
    except ArtifactError as error:
        raise InvalidValue(f"{error}.", param="artifact") from None
    except ArithmeticError as error:
        raise InvalidValue(f"artifact {name!r} cannot score: {error}. Train it again.", param="artifact") from None
    return CheckedArtifact(router.version, hashlib.sha256(content).hexdigest(), content, router.card)


def kept_routers(database: Database) -> Iterator[Router]:
    """Every artifact in the database that this release can use, newest first. Raises Unavailable."""
    with snapshot(database) as connection:
        versions = [each.version for each in artifact_rows(connection)]
    for version in versions:
        with snapshot(database) as connection:
            found = artifact_bytes(connection, version)
        if found is not None:
            with suppress(ArtifactError, InvalidValue, ArithmeticError):
                yield open_artifact(found[0], version)


@lru_cache(maxsize=1)
def _bundled() -> tuple[str, dict[str, Any]]:
    router = Router.load()
    return router.version, router.card


def bundled_version() -> str:
    """The version that requests were scored with where an assignment says `bundled`."""
    return _bundled()[0]


def bundled_card() -> dict[str, Any]:
    """What the training wrote down about the bundled artifact."""
    return dict(_bundled()[1])


class Scorers:
    """The routers in memory, by policy; `for_request` is a look-up and a hash."""

    def __init__(
        self,
        bundled: Router,
        database: Database,
        policies: Collection[str],
        report: Callable[[str, float, tuple[str, ...]], None] = lambda name, value, labels: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bundled = bundled
        self._database = database
        self._policies = policies
        self._report = report
        self._clock = clock
        self._plain = Served(bundled)
        self._served: dict[str, Served] = {}
        self._loaded: dict[str, Router] = {}
        self._problems: dict[str, str] = {}
        self._retry_at: dict[str, float] = {}
        self._seen: dict[str, Assignment] = {}
        self._drift_at = 0.0
        self._prepare: list[Callable[[Router], None]] = []
        self._task: asyncio.Task[None] | None = None

    def for_request(self, policy: str, request_id: str) -> Scorer:
        """What scores this request; the same id gets the same artifact while the assignment stands."""
        served = self._served.get(policy)
        if served is None:
            return self._bundled
        if served.below and crc32(request_id.encode()) < served.below and served.challenger is not None:
            return served.challenger
        return served.champion

    def champion(self, policy: str) -> Router:
        """What scores the requests of a policy, its challenger's aside."""
        serves = self._served.get(policy, self._plain).champion
        return next(router for router in self.in_use() if router is serves)

    def before_use(self, prepare: Callable[[Router], None]) -> None:
        """Have this done with every artifact before a request is scored with it."""
        self._prepare.append(prepare)

    def router(self, version: str) -> Router | None:
        """The router of a version that is in use."""
        return next((router for router in self.in_use() if router.version == version), None)

    def in_use(self) -> tuple[Router, ...]:
        """Every router that a request may be scored with now, the bundled one first."""
        return (self._bundled, *self._loaded.values())

    async def open(self) -> None:
        """Load what is assigned, and keep looking. A database that is down leaves the bundled artifact for the time being."""
        try:
            await asyncio.to_thread(self.renew)
        except Exception as error:
            logger.warning("the router's artifacts could not be read: %s", type(error).__name__)
        self._task = asyncio.create_task(self._keep_fresh())

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def renew(self) -> None:
        """Read the assignments and load what is new in them. Raises Unavailable; artifacts that are no good are only noted."""
        with snapshot(self._database) as connection:
            # Those of policies that the configuration no longer has serve nobody.
            assignments = {name: given for name, given in assignment_rows(connection).items() if name in self._policies}
        self._report_drift()
        wanted = {version for each in assignments.values() for version in each.versions()} - {BUNDLED}
        if assignments == self._seen and wanted <= self._loaded.keys():
            return
        problems: dict[str, str] = {}
        loaded = {version: router for version, router in self._loaded.items() if version in wanted}
        for version in sorted(wanted - loaded.keys()):
            router = self._load(version, problems) if len(loaded) < MOST_LOADED else None
            if router is not None:
                loaded[version] = router
            elif version not in problems:
                problems[version] = f"{MOST_LOADED} other artifacts are in use; it is the limit"
        served = {policy: self._serve(each, loaded) for policy, each in assignments.items()}
        # What a request has been scored with must be found by its version: routers are there before they serve, and as
        # long as they do, also where the one after them cannot be loaded.
        used = {id(router) for each in served.values() for router in (each.champion, each.challenger)}
        on = {version: router for version, router in self._loaded.items() if id(router) in used}
        self._loaded = on | loaded
        self._served, self._seen = served, assignments
        self._note(problems)

    def _serve(self, assignment: Assignment, loaded: Mapping[str, Router]) -> Served:
        before = self._served.get(assignment.policy, self._plain)
        routers = {BUNDLED: self._bundled, **loaded}
        champion = routers.get(assignment.champion)
        challenger = routers.get(assignment.challenger) if assignment.challenger is not None else None
        share = round(assignment.share * 2**32) if challenger is not None else 0
        return Served(champion if champion is not None else before.champion, challenger, share)

    def _load(self, version: str, problems: dict[str, str]) -> Router | None:
        if self._retry_at.get(version, 0.0) > self._clock():
            problems[version] = self._problems.get(version, "it could not be used a moment ago")
            return None
        with snapshot(self._database) as connection:
            found = artifact_bytes(connection, version)
        try:
            if found is None:
                raise InvalidValue("it is not in the database.")
            if hashlib.sha256(found[0]).hexdigest() != found[1]:
                raise InvalidValue("its bytes are not those that were added (SHA-256).")
            router = open_artifact(found[0], version)
            if router.version != version:
                raise InvalidValue(f"it calls itself {router.version!r}.")
            for prepare in self._prepare:
                prepare(router)
        # Whatever is wrong with an artifact, the gateway answers on.
        except Exception as error:
            problems[version] = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
            self._retry_at[version] = self._clock() + RETRY_SECONDS
            return None
        self._retry_at.pop(version, None)
        return router

    def _note(self, problems: dict[str, str]) -> None:
        for version, problem in problems.items():
            if self._problems.get(version) != problem:
                logger.error("router artifact %r cannot be used, the one before it goes on: %s", version, problem)
        self._problems = problems
        self._report("penstock_router_unusable_artifacts", len(problems), ())

    def _report_drift(self) -> None:
        """Show on /metrics what the job `router-drift` has measured: it runs in a process without metrics."""
        if self._clock() < self._drift_at:
            return
        self._drift_at = self._clock() + DRIFT_SECONDS
        with snapshot(self._database) as connection:
            found = latest_drift(connection, time.time() - DRIFT_COUNTS_SECONDS)
        for policy, measure, value in found:
            self._report("penstock_router_drift", value, (policy, measure))

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await asyncio.to_thread(self.renew)
            except Exception as error:  # what is loaded goes on; the next round tries again
                logger.warning("the router's artifacts could not be refreshed: %s", type(error).__name__)


def _unpacked(content: bytes) -> int:
    """How large the parts of a packed file say they are; 0 for what is no such file."""
    try:
        parts: Iterable[zipfile.ZipInfo] = zipfile.ZipFile(io.BytesIO(content)).infolist()
        return sum(part.file_size for part in parts)
    except Exception:
        return 0
