"""docs/api.md is what the OpenAPI document says."""

from __future__ import annotations

from agno_sql.server import refusals
from tests.server.reference import PAGE, document, page


def test_the_page_is_generated_from_the_document() -> None:
    assert PAGE.read_text() == page(), "write it anew: python -m tests.server.reference"


def test_ids_never_travel_in_a_path_and_every_operation_tells_its_problems() -> None:
    paths = document()["paths"]
    assert not [path for path in paths if "{" in path]
    for path, operations in paths.items():
        for operation in operations.values():
            assert operation["summary"]
            assert path == "/healthz" or {"503"} <= set(operation["responses"])


def test_the_document_says_how_callers_are_known_only_if_they_have_to_be() -> None:
    assert "securitySchemes" not in document()["components"]
    assert refusals.UnauthenticatedError.code == "unauthenticated"
