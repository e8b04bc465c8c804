from __future__ import annotations

import pytest
from sqlalchemy import make_url

from agno_sql.errors import InvalidDatabaseURLError
from agno_sql.memory.sql import SQLMemory
from agno_sql.store.url import driver_options, normalize_url


@pytest.mark.parametrize(
    "given,meant",
    [
        ("postgres://u:p@h:5432/d", "postgresql+asyncpg://u:p@h:5432/d"),
        ("postgresql://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql+asyncpg://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("sqlite:///chat.db", "sqlite+aiosqlite:///chat.db"),
        ("sqlite://", "sqlite+aiosqlite://"),
        ("sqlite+aiosqlite:////tmp/c.db", "sqlite+aiosqlite:////tmp/c.db"),
    ],
)
def test_urls_as_people_write_them_get_the_asynchronous_driver(given: str, meant: str) -> None:
    assert normalize_url(given) == make_url(meant)


@pytest.mark.parametrize(
    "given,suggested",
    [
        ("postgresql+psycopg://h/d", "postgresql+asyncpg://"),
        ("postgresql+psycopg2://h/d", "postgresql+asyncpg://"),
        ("sqlite+pysqlite:///x", "sqlite+aiosqlite://"),
        ("mysql://h/d", "postgresql://"),
        ("sqlit:///x.db", "sqlite:///"),
        ("postgresqll://h/d", "postgresql"),
    ],
)
def test_another_scheme_is_an_error_that_names_the_right_one(given: str, suggested: str) -> None:
    with pytest.raises(InvalidDatabaseURLError) as caught:
        normalize_url(given)
    assert suggested in str(caught.value)
    assert given.split(":", maxsplit=1)[0] in str(caught.value)


@pytest.mark.parametrize("given", ["", "chat.db", "://", "postgresql://h:port/d", None, 7])
def test_what_is_no_url_is_an_error_that_shows_none_of_it(given: str) -> None:
    with pytest.raises(InvalidDatabaseURLError, match="not a database URL"):
        normalize_url(given)


def test_a_password_never_stands_in_an_error() -> None:
    with pytest.raises(InvalidDatabaseURLError) as caught:
        normalize_url("mysql://user:s3cret@host/db")
    assert "s3cret" not in str(caught.value)


def test_options_as_libpq_has_them_reach_the_driver() -> None:
    url = normalize_url(
        "postgres://h/d?sslmode=require&application_name=chat&connect_timeout=5"
        "&statement_cache_size=0"
    )
    plain, arguments = driver_options(url)
    assert plain == make_url("postgresql+asyncpg://h/d")
    assert arguments == {
        "ssl": "require",
        "server_settings": {"application_name": "chat"},
        "timeout": 5.0,
        "statement_cache_size": 0,
    }


@pytest.mark.parametrize(
    "url, named",
    [
        ("postgresql://h/d?channel_binding=require", "channel_binding"),
        ("postgresql://h/d?connect_timeout=soon", "connect_timeout"),
        ("sqlite:///x.db?nonsense=1", "nonsense"),
        ("postgresql://h:99999/d", "99999"),
        ("sqlite:///a\0b.db", "NUL"),
        ("sqlite://chat.db", "three slashes"),
    ],
)
def test_a_part_that_cannot_be_used_is_an_error_that_names_it(url: str, named: str) -> None:
    with pytest.raises(InvalidDatabaseURLError, match=named):
        normalize_url(url)


async def test_a_url_with_options_opens_a_database(postgres_url: str) -> None:
    url = f"{postgres_url}?application_name=agno&connect_timeout=5&statement_cache_size=0"
    async with SQLMemory.open(url) as memory:
        assert await memory.size("alice") == 0
