"""The OpenAPI document: what FastAPI gathers, with the one form that every error has."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from serve import schemas as models
from serve.problems import MEDIA_TYPE
from serve.schemas import Problem, TagName, TagRequest

_COMPONENT = "#/components/schemas/{model}"


def install(app: FastAPI) -> None:
    """Make ``app.openapi`` give this document."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's own way of changing it


def _document(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    schemas = found["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's form of a refusal, which is not ours
        schemas.pop(unused, None)
    for model in (Problem, TagName, TagRequest):  # routes that read their body themselves are not looked into
        schemas[model.__name__] = model.model_json_schema(ref_template=_COMPONENT)
        schemas[model.__name__].pop("$defs", None)
    for name, schema in schemas.items():
        if "examples" in schema:  # FastAPI has taken out what is null
            schema["examples"] = getattr(models, name).model_config["json_schema_extra"]["examples"]
    problem = {
        "description": "What is wrong, as a problem document (RFC 9457)",
        "content": {MEDIA_TYPE: {"schema": {"$ref": _COMPONENT.format(model="Problem")}}},
    }
    found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path in found["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = problem
            operation["security"] = [{}, {"token": []}]  # none where the server has no tokens
    return found
