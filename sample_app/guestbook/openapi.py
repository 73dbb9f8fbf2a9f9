"""The description of the API (OpenAPI 3.1), generated from the models that check its requests and responses."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from .api import EntryIn, EntryList, EntryOut, Problem

_REFERENCE = "#/components/schemas/"
_NUMBER = {"name": "number", "in": "path", "required": True, "schema": {"type": "integer"}}
_PAGE = [
    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}},
    {"name": "before", "in": "query", "description": "Only entries with a lower id.", "schema": {"type": "integer"}},
]


def describe() -> dict[str, Any]:
    models = (EntryIn, EntryList, EntryOut, Problem)
    _, schema = models_json_schema([(model, "validation") for model in models], ref_template=_REFERENCE + "{model}")
    one, many = "/api/v1/entries/{number}", "/api/v1/entries"
    return {
        "openapi": "3.1.0",
        "info": {"title": "Guestbook", "version": "1"},
        "paths": {
            many: {
                "get": _operation("List entries, newest first", 200, EntryList, parameters=_PAGE, token=False),
                "post": _operation("Write an entry", 201, EntryOut, body=EntryIn),
            },
            one: {
                "parameters": [_NUMBER],
                "get": _operation("Read an entry", 200, EntryOut, token=False),
                "put": _operation("Change your entry, with If-Match only this version", 200, EntryOut, body=EntryIn),
                "delete": _operation("Delete your entry, or as a moderator any", 204),
            },
            "/api/v1/openapi.json": {"get": _operation("This description", 200, token=False)},
        },
        "components": {
            "schemas": schema["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(
    summary: str,
    status: int,
    response: type[BaseModel] | None = None,
    *,
    body: type[BaseModel] | None = None,
    parameters: list[dict[str, Any]] | None = None,
    token: bool = True,
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": summary,
        "parameters": parameters or [],
        "responses": {
            str(status): {"description": "Done"} | _content("application/json", response),
            "default": {"description": "A problem"} | _content("application/problem+json", Problem),
        },
    }
    if body:
        operation["requestBody"] = {"required": True} | _content("application/json", body)
    if token:
        operation["security"] = [{"token": []}]
    return operation


def _content(kind: str, model: type[BaseModel] | None) -> dict[str, Any]:
    return {"content": {kind: {"schema": {"$ref": _REFERENCE + model.__name__}}}} if model else {}
