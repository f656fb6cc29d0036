"""Every route of the admin API names one action, so that a role decides about it; reading is GET, changing is not."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from fastapi.routing import APIRoute

from gateway.api import admin
from gateway.keys.roles import Action

ROUTES = [(noun.__name__.rpartition(".")[2], route) for noun in admin.NOUNS for route in noun.routes.routes]


def actions(route: Any) -> list[str]:
    """The actions that the dependencies of a route check."""
    assert isinstance(route, APIRoute)
    return [action for each in route.dependant.dependencies if (action := getattr(each.call, "action", None))]


@pytest.mark.parametrize(("noun", "route"), ROUTES, ids=lambda value: getattr(value, "name", value))
def test_a_route_names_exactly_one_action_and_it_fits_the_method(noun: str, route: Any) -> None:
    named = actions(route)
    assert len(named) == 1, f"give {route.path} one parameter `Annotated[Actor, may(ACTION)]` (gateway/keys/roles.py)"
    assert named[0] in get_args(Action)
    assert (route.methods == {"GET"}) == named[0].endswith((".read", ".verify")), f"{route.methods} {route.path}"


def test_every_action_is_used_by_a_route() -> None:
    used = {action for _, route in ROUTES for action in actions(route)}
    assert used == set(get_args(Action)), "an action that nothing asks for is a promise that nothing keeps"


def test_the_admin_api_lets_nobody_in_without_asking_who_it_is() -> None:
    assert [each.dependency.__name__ for each in admin.api.dependencies] == ["require_member"]
