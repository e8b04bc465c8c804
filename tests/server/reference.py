"""Writes docs/api.md from the OpenAPI document: ``python -m tests.server.reference``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from agno_sql.agent.agent import Agent
from agno_sql.memory.sql import SQLMemory
from agno_sql.models.demo import DemoModel
from agno_sql.server import create_app
from agno_sql.store.engine import open_engine
from tests.support.postgres import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE: Final = CHECKOUT / "docs" / "api.md"
_INTRODUCTION: Final = """# HTTP API

What `agno-sql serve` answers. This page is generated from the OpenAPI document, which a running server
has at `/openapi.json`.

- With authentication, each request carries `Authorization: Bearer …` with an API key or a token. A token
  names its user, so `user_id` may be left out, and another one is a 403; else `user_id` is required.
- A run belongs to the server. A client that goes away loses nothing: the same `run_id` (or
  `Idempotency-Key`) again gets the answer, or follows the stream from its beginning.
- Errors are problem details (RFC 9457, `application/problem+json`): `code` is stable, `retryable` says
  whether the same request may succeed later, and then `Retry-After` when.
- Lists come in pages: pass `next` on as `cursor` until it is null or not there.
- Other agents call it by [A2A](a2a.md), whose paths are the protocol's and not here.
"""


def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    engine = open_engine("sqlite://")
    agent = Agent(name="assistant", model=DemoModel(), memory=SQLMemory(engine))
    found: dict[str, Any] = create_app(agent).openapi()
    return found


def page() -> str:
    """Return the page."""
    found = document()
    parts = [_INTRODUCTION]
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            parts.append("\n".join(_operation(f"{method.upper()} {path}", operation)))
    parts.append("## Schemas\n")
    for name, schema in sorted(found["components"]["schemas"].items()):
        parts.append("\n".join(_schema(name, schema)))
    return "\n".join(parts)


def _operation(name: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"## {name}\n\n{operation['summary']}. {operation['description']}\n"
    rows = [
        (one["name"], one["in"], one["schema"], one.get("required"), one.get("description", ""))
        for one in operation.get("parameters", ())
    ]
    if rows:
        yield "| parameter | in | type | |\n|---|---|---|---|"
        for parameter, place, schema, required, told in rows:
            needed = "required. " if required else ""
            yield f"| `{parameter}` | {place} | {_type(schema)} | {(needed + told).strip()} |"
        yield ""
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]
        yield f"Body: {_type(content['application/json']['schema'])}\n"
    yield "| status | body | |\n|---|---|---|"
    for status, response in operation["responses"].items():
        bodies = [
            f"{_type(content['schema'])}" if "schema" in content else "server-sent events"
            for content in response.get("content", {}).values()
        ]
        yield f"| {status} | {', '.join(bodies)} | {response['description']} |"
    yield ""


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"### {name}\n\n{schema.get('description', '')}\n"
    yield "| field | type | |\n|---|---|---|"
    required = schema.get("required", ())
    for field, described in schema["properties"].items():
        needed = "required. " if field in required else ""
        told = " ".join(described.get("description", "").split())
        yield f"| `{field}` | {_type(described)} | {(needed + told).strip()} |"
    yield ""


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    return str(schema.get("type", "any"))


if __name__ == "__main__":
    PAGE.write_text(page())
