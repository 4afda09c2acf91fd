"""The OpenAPI document is whole: every operation and every error with an example that fits its schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from api.app import ROUTES, create_app
from api.operations import OPERATIONS
from dspy_jobs.settings import ModelSettings, Settings


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The served document."""
    return create_app(Settings(models={"sandbox": ModelSettings(model="openai/sandbox")})).openapi()


def contents(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every body, of requests and answers, with a name for messages."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, answer in operation["responses"].items():
                for media, content in answer.get("content", {}).items():
                    yield f"{method} {path} {status} {media}", content
            for media, content in operation.get("requestBody", {}).get("content", {}).items():
                yield f"{method} {path} body {media}", content


def examples(content: dict[str, Any]) -> list[Any]:
    """The examples of a body."""
    if "example" in content:
        return [content["example"]]
    return [example["value"] for example in content["examples"].values()]


def test_every_route_is_described(document: dict[str, Any]) -> None:
    """The table of routes, the table of operations and the document name the same operations."""
    shown = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert shown == set(OPERATIONS) == {(method, path) for method, path, _ in ROUTES}


def test_every_example_fits_its_schema(document: dict[str, Any]) -> None:
    """Each body and each answer has an example, and the example is valid."""
    for where, content in contents(document):
        schema = {**content["schema"], "components": document["components"]}
        found = examples(content)
        assert found, where
        for example in found:
            mistakes = [error.message for error in Draft202012Validator(schema).iter_errors(example)]
            assert not mistakes, where


def test_every_error_is_a_problem(document: dict[str, Any]) -> None:
    """Answers from 400 on are described as problem+json and nothing else; but an unhealthy service says how it is."""
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                if int(status) >= 400 and (path, status) != ("/health", "503"):
                    assert list(answer["content"]) == ["application/problem+json"], path
