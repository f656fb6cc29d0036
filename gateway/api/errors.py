"""Errors of the FastAPI routes in the same shape as everywhere: {"error": {message, type, param, code}}."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gateway.errors import InvalidJson, InvalidValue, MethodNotAllowed, PenstockError, UnknownRoute
from gateway.mistakes import foremost, given, unknown_key, words

logger = logging.getLogger(__name__)


def install_error_handlers(app: FastAPI) -> None:
    """Translate the framework's own errors and render Penstock's."""

    async def render(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, PenstockError)
        return JSONResponse(error.body(), error.http_status, error.headers)

    async def http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        where = f"{request.method} {request.url.path}"
        if error.status_code == MethodNotAllowed.status:
            return await render(
                request, MethodNotAllowed(f"{where} is not allowed.", headers=dict(error.headers or {}))
            )
        if error.status_code == InvalidJson.status:  # what the framework says of a body that is not even text
            return await render(request, InvalidJson("The body is not valid JSON in UTF-8."))
        return await render(
            request, UnknownRoute(f"Unknown request URL: {where}. The API starts at /v1, the admin API at /admin/api.")
        )

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        problem = foremost(error.errors())
        if problem["type"] == "json_invalid":
            why, place = problem["ctx"]["error"], problem["loc"][-1]
            return await render(request, InvalidJson(f"The body is not valid JSON: {why}, at character {place}."))
        return await render(request, _in_our_words(request, problem))

    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        logger.error("a request failed: %s %s", request.method, request.url.path, exc_info=error)
        return await render(request, PenstockError("Penstock failed to answer; its log says why."))

    app.add_exception_handler(PenstockError, render)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, unexpected)


def _in_our_words(request: Request, problem: dict[str, Any]) -> InvalidValue:
    """What the framework refused: the place in the body or the address, what is wrong there, and what was given."""
    location = problem["loc"][1:]
    name = ".".join(str(part) for part in location)
    if not name:
        empty = problem.get("input") is None
        said = "The body is empty" if empty else f"The body is {given(problem):.200}"
        return InvalidValue(f'{said}; it must be a JSON object, such as {{"key": "value"}}.', param="body")
    if problem["type"] == "extra_forbidden":
        body = getattr(request.scope.get("route"), "body_field", None)
        return InvalidValue(
            unknown_key(name, location, body.field_info.annotation if body is not None else None), param=name
        )
    if problem["type"] == "missing":
        return InvalidValue(f"{name}: {words(problem)}.", param=name)
    return InvalidValue(f"{name}: {words(problem)}, got {given(problem)}.", param=name)
