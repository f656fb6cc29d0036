"""The command line as a whole: help, exit codes, and errors that are one message and no traceback."""

import pytest

from gateway.commands.engine import engine
from local_engine.__main__ import main
from tests.gateway.commands.processes import complaint, penstock


def test_help_lists_the_commands_and_hides_those_that_are_not_for_people() -> None:
    done = penstock("--help")
    assert done.returncode == 0
    assert "Engine and gateway with one command" in done.stdout
    assert "worker" not in done.stdout
    assert "deliver" not in done.stdout


def test_the_version_is_printed() -> None:
    done = penstock("--version")
    assert done.stdout.startswith("penstock ")


@pytest.mark.parametrize("arguments", [["invoice"], ["keys", "lend"], ["up", "--colour"], ["serve", "--port", "70000"]])
def test_what_is_not_a_command_or_an_option_is_exit_code_2(arguments: list[str]) -> None:
    done = penstock(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: penstock")


@pytest.mark.parametrize(
    ("name", "value"), [("PENSTOCK_PORT", "four"), ("PENSTOCK_WORKERS", "0"), ("PENSTOCK_LOG_LEVEL", "loud")]
)
def test_a_wrong_environment_variable_is_named_with_its_value(name: str, value: str) -> None:
    done = penstock("keys", "list", environment={name: value})
    assert done.returncode == 2
    assert f"{name} is {value!r}" in complaint(done)


def test_commands_of_the_engine_are_handed_over_with_all_their_options() -> None:
    done = penstock("engine", "fetch", "no-such-model", "--hub-url", "http://127.0.0.1:9", "--json")
    assert done.returncode == 1
    assert "no-such-model" in done.stderr


def test_every_command_of_the_engine_can_be_given_to_penstock() -> None:
    assert set(engine.commands) == set(main.commands)
