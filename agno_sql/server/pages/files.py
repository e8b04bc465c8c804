"""Files that browsers load, and what their answers say of them."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

FOLDER: Final = Path(__file__).parent
# Not mimetypes, which asks the machine.
_MEDIA_TYPES: Final = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

_RULES: Final = (
    "default-src 'none'",
    "style-src 'self'",
    "img-src 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
)


def policy(*more: str) -> str:
    """Return a Content-Security-Policy: styles and pictures of ours, and what *more* says."""
    return "; ".join((*_RULES, *more))


_POLICY: Final = policy(
    "script-src 'self'",
    "connect-src 'self'",
    "form-action 'none'",
    # No text becomes HTML: the browser itself refuses innerHTML and the like.
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
)


@dataclass(frozen=True, slots=True)
class File:
    """A file in memory; a browser that has it asks each time whether it is still the same."""

    body: bytes
    media_type: str
    etag: str

    @classmethod
    def of(cls, text: str, suffix: str) -> Self:
        """Return *text* as a file whose name ends with *suffix*."""
        body = text.encode()
        return cls(body, _MEDIA_TYPES[suffix], f'"{sha256(body).hexdigest()[:32]}"')

    def response(self, request: Request) -> Response:
        """Return the answer to *request* for the file."""
        headers = {
            "cache-control": "no-cache",
            "content-security-policy": _POLICY,
            "etag": self.etag,
        }
        known = request.headers.get("if-none-match", "")
        if self.etag in (one.strip().removeprefix("W/") for one in known.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(self.body, media_type=self.media_type, headers=headers)


def static_files() -> Mapping[str, File]:
    """Return all files under ``static``, by their paths there."""
    root = FOLDER / "static"
    return {
        path.relative_to(root).as_posix(): File.of(path.read_text("utf-8"), path.suffix)
        for path in root.rglob("*.*")
    }
