"""What CONTRIBUTING.md says of the code is true."""

from __future__ import annotations

from tests.support.postgres import CHECKOUT

MOST_LINES = 400


def test_no_file_is_too_long_to_be_read_at_once() -> None:
    files = [
        file
        for folder in ("agno_sql", "benchmarks", "tests", "migrations")
        for file in (CHECKOUT / folder).rglob("*.py")
    ]
    lines = {str(f.relative_to(CHECKOUT)): len(f.read_text().splitlines()) for f in files}
    assert lines
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}
