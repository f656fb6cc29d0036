"""Commands as processes and in this one; an environment in which nothing configures Penstock by accident."""

from collections.abc import Iterator

import pytest

from tests.gateway.commands.processes import Start, starting


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts `python ARGUMENTS...` as a process."""
    with starting() as start:
        yield start
