"""The double-entry ledger: every finished request is one transaction that sums to zero; rows are added, never changed."""

from gateway.billing.ledger.post import Account, entries_of, post
from gateway.billing.ledger.verify import Verification, verify

__all__ = ["Account", "Verification", "entries_of", "post", "verify"]
