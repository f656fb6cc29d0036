"""The SQL of keys and their secrets: insert, find by hash, list, rotate, revoke, last use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, RowMapping, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from gateway.callers import Terms
from gateway.catalog_owners import terms_of
from gateway.config_policies import NO_ROUTING, Routing
from gateway.db.connect import Database
from gateway.db.identity_tables import key_secrets
from gateway.db.tables import api_keys, moment
from gateway.db.transaction import snapshot, transaction
from gateway.errors import Conflict


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as stored. Times are seconds since the epoch (UTC)."""

    id: str
    name: str
    tenant: str
    project: str | None
    models: frozenset[str] | None
    tiers: frozenset[str] | None
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None = field(compare=False)
    routing: Routing = NO_ROUTING

    @property
    def terms(self) -> Terms:
        """What it adds to its tenant's policy."""
        return terms_of(self.routing)

    def state(self, now: float) -> str:
        """`valid`, `revoked` or `expired`."""
        if self.revoked_at is not None and self.revoked_at <= now:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "valid"


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret of a key, by its hash; it works until `ends_at` and never longer than its key."""

    hash: str
    key: KeyRow
    ends_at: float | None

    def works(self, now: float) -> bool:
        """Whether it may be used."""
        return self.key.state(now) == "valid" and (self.ends_at is None or self.ends_at > now)


def insert_key(connection: Connection, row: KeyRow, digest: str) -> None:
    """Store a key with its first secret. Raises Conflict when the tenant has a key of this name."""
    values = {
        "id": row.id,
        "name": row.name,
        "tenant": row.tenant,
        "project": row.project,
        "models": sorted(row.models) if row.models is not None else None,
        "tiers": sorted(row.tiers) if row.tiers is not None else None,
        "routing": row.routing.model_dump(mode="json", exclude_unset=True) or None,
        "created_at": _moment(row.created_at),
        "expires_at": _moment(row.expires_at),
    }
    try:
        connection.execute(insert(api_keys).values(**values))
    except IntegrityError:
        raise Conflict(
            f"The tenant {row.tenant!r} already has a key named {row.name!r}, which may have expired and is not revoked. "
            "Choose another name, rotate that key for a new secret, or revoke it first.",
            param="name",
        ) from None
    add_secret(connection, row.id, digest, row.created_at)


def add_secret(connection: Connection, key_id: str, digest: str, now: float) -> None:
    """Store one more secret of a key."""
    connection.execute(insert(key_secrets).values(hash=digest, key_id=key_id, created_at=_moment(now)))


def end_secrets(connection: Connection, key_id: str, at: float) -> None:
    """Let every secret of a key end at `at`, those that end earlier anyway excepted."""
    later = key_secrets.c.ends_at.is_(None) | (key_secrets.c.ends_at > moment(at))
    connection.execute(update(key_secrets).where((key_secrets.c.key_id == key_id) & later).values(ends_at=_moment(at)))


def lock_keys(connection: Connection, name_or_id: str, tenant: str | None, now: float) -> list[KeyRow]:
    """The keys with this id or name that are not revoked, kept from changing until the transaction ends."""
    matching = (api_keys.c.id == name_or_id) | (api_keys.c.name == name_or_id)
    valid = api_keys.c.revoked_at.is_(None) | (api_keys.c.revoked_at > moment(now))
    query = select(api_keys).where(matching & valid).order_by(api_keys.c.id).with_for_update()
    if tenant is not None:
        query = query.where(api_keys.c.tenant == tenant)
    return [_row(row) for row in connection.execute(query).mappings()]


def revoke_keys(connection: Connection, ids: Sequence[str], now: float) -> None:
    """End keys for good; their secrets end with them."""
    connection.execute(update(api_keys).where(api_keys.c.id.in_(ids)).values(revoked_at=_moment(now)))


def list_keys(database: Database, tenant: str | None = None) -> list[KeyRow]:
    """All keys (of one tenant), revoked ones too, oldest first."""
    query = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)
    if tenant is not None:
        query = query.where(api_keys.c.tenant == tenant)
    with snapshot(database) as connection:
        return [_row(row) for row in connection.execute(query).mappings()]


def read_secrets(connection: Connection) -> list[Secret]:
    """Every secret with its key."""
    query = select(api_keys, key_secrets.c.hash, key_secrets.c.ends_at).join(
        key_secrets, key_secrets.c.key_id == api_keys.c.id
    )
    rows: dict[str, KeyRow] = {}
    found = []
    for row in connection.execute(query).mappings():
        key = rows.get(row["id"]) or rows.setdefault(row["id"], _row(row))
        found.append(Secret(row["hash"], key, _seconds(row["ends_at"])))
    return found


def find_secret(connection: Connection, digest: str) -> Secret | None:
    """The secret with this hash, and its key."""
    query = select(api_keys, key_secrets.c.ends_at).join(key_secrets, key_secrets.c.key_id == api_keys.c.id)
    row = connection.execute(query.where(key_secrets.c.hash == digest)).mappings().one_or_none()
    return Secret(digest, _row(row), _seconds(row["ends_at"])) if row is not None else None


def touch_keys(database: Database, used: Mapping[str, float]) -> None:
    """Write when keys were last used. Ids of declared keys are not in the table and change nothing."""
    if not used:
        return
    statement = update(api_keys).where(api_keys.c.id == bindparam("key")).values(last_used_at=bindparam("used_at"))
    # In the order of their ids, so that two processes never wait for each other.
    with transaction(database) as connection:
        connection.execute(statement, [{"key": key, "used_at": _moment(at)} for key, at in sorted(used.items())])


def _row(row: RowMapping) -> KeyRow:
    return KeyRow(
        id=row["id"],
        name=row["name"],
        tenant=row["tenant"],
        project=row["project"],
        models=frozenset(row["models"]) if row["models"] is not None else None,
        tiers=frozenset(row["tiers"]) if row["tiers"] is not None else None,
        created_at=row["created_at"].timestamp(),
        expires_at=_seconds(row["expires_at"]),
        revoked_at=_seconds(row["revoked_at"]),
        last_used_at=_seconds(row["last_used_at"]),
        routing=Routing.model_validate(row["routing"]) if row["routing"] else NO_ROUTING,
    )


def _moment(seconds: float | None) -> datetime | None:
    return moment(seconds) if seconds is not None else None


def _seconds(value: datetime | None) -> float | None:
    return value.timestamp() if value is not None else None
