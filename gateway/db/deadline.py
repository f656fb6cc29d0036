"""A PostgreSQL connection that gives up waiting: a frozen server does not answer, and its own timeouts are frozen with it."""

from __future__ import annotations

from typing import Any

from psycopg import Connection, OperationalError
from psycopg.errors import _WaitTimeout


class PatientConnection(Connection[Any]):
    """Waits for the server at most `patience` seconds at a time, then closes itself and raises OperationalError."""

    patience: float | None = None

    def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
        """Every answer of the server is waited for here (psycopg's own hook)."""
        options.setdefault("timeout", self.patience)
        try:
            return super().wait(gen, *arguments, **options)
        except _WaitTimeout:
            self.pgconn.finish()
            raise OperationalError(f"the server did not answer within {self.patience:g} s") from None
