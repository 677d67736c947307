"""The OpenAPI document says what the server does: every route, with examples that hold."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator
from served_app import problem_of

from serve import schemas
from serve.app import create_app
from serve.settings import Settings


@pytest.fixture(scope="module")
def document():
    return create_app(Settings(index="nowhere")).openapi()


def operations(document):
    return [(method, path, one) for path, methods in document["paths"].items() for method, one in methods.items()]


def test_every_route_of_the_contract_is_there(document):
    expected = {
        "get /health", "get /ready", "get /metrics", "get /v1/info", "get /v1/facets", "get /v1/tags",
        "post /v1/embed/text", "post /v1/embed/audio", "post /v1/uploads", "post /v1/embeddings", "post /embed",
        "get /info", "get /v1/models", "post /v1/search", "get /v1/search", "get /v1/similar", "get /v1/tracks",
        "get /v1/track", "post /v1/tag", "get /v1/audio", "get /v1/waveform", "get /v1/map", "post /v1/reload",
    }  # fmt: skip
    assert {f"{method} {path}" for method, path, _ in operations(document)} == expected


def test_every_route_says_what_it_does_and_how_it_refuses(document):
    names = [one["operationId"] for _, _, one in operations(document)]
    assert len(names) == len(set(names))
    for method, path, one in operations(document):
        assert one["summary"], (method, path)
        assert len(one["description"]) > 20, (method, path)
        assert "application/problem+json" in one["responses"]["default"]["content"]
        assert "422" not in one["responses"]


def schema_of(document, content):
    schema = content["schema"]
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def test_every_body_and_answer_has_an_example(document):
    for method, path, one in operations(document):
        contents = [one["requestBody"]["content"]] if "requestBody" in one else []
        contents += [answer.get("content", {}) for status, answer in one["responses"].items() if status[0] == "2"]
        for content in contents:
            if "application/json" in content and path not in ("/embed", "/info", "/v1/models"):
                found = content["application/json"]
                assert "example" in found or "examples" in schema_of(document, found), (method, path)
        for parameter in one.get("parameters", ()):
            if parameter["required"] or parameter["name"] == "where":
                assert "examples" in parameter or "examples" in parameter["schema"], (method, path, parameter["name"])


def test_the_examples_keep_to_their_own_schemas(document):
    seen = 0
    for name, schema in document["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            whole = {**schema, "components": document["components"]}
            Draft202012Validator(whole).validate(example)
            getattr(schemas, name).model_validate(example)
            seen += 1
    assert seen >= 18


def test_the_examples_of_requests_are_answered(document, client_of_tones):
    """With the ids of the tones in place of those of the examples."""
    for path, name in [("/v1/search", "SearchRequest"), ("/v1/tag", "TagRequest"), ("/v1/embed/text", "EmbedTexts"),
                       ("/v1/embeddings", "OpenAIRequest"), ("/embed", "TeiRequest")]:  # fmt: skip
        example = json.dumps(document["components"]["schemas"][name]["examples"][0]).replace("clip-00178", "tone03")
        answer = client_of_tones("POST", path, content=example, headers={"content-type": "application/json"})
        assert answer.status_code == 200, answer.text


def test_the_document_is_served_and_no_page_that_needs_a_network(client_of_tones, document):
    assert client_of_tones("GET", "/openapi.json").json() == json.loads(json.dumps(document))
    for path in ("/docs", "/redoc"):
        problem_of(client_of_tones("GET", path), 404, "not-found")
