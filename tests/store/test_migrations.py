"""The schema's way up and down, by Alembic's own command in a checkout and by ours."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from agno_sql.errors import SchemaOutOfDateError, StoreError
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message, ToolCall
from agno_sql.store import migrate
from agno_sql.store.database import Database
from agno_sql.store.engine import open_engine
from agno_sql.store.schema import HEAD, VERSION_TABLE
from agno_sql.store.tables import metadata
from tests.support.postgres import CHECKOUT
from tests.support.tenant_guard import TENANT_TABLES

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

MIGRATIONS: Final = sorted((CHECKOUT / "migrations" / "versions").glob("*.py"))


@pytest.fixture(
    params=[
        pytest.param("sqlite_url", id="sqlite"),
        pytest.param("empty_postgres_url", id="postgres18"),
    ]
)
def empty_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


def alembic(*arguments: str, cwd: Path = CHECKOUT, **environment: str) -> str:
    """Run the alembic command in the checkout; return what it printed on stdout."""
    clean = {k: v for k, v in os.environ.items() if not k.endswith("DATABASE_URL")}
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(CHECKOUT / "alembic.ini"), *arguments],
        cwd=cwd,
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def table_names(url: str) -> set[str]:
    def names(connection: Connection) -> set[str]:
        found = inspect(connection)
        return {*found.get_table_names(), *found.get_view_names()}

    engine = open_engine(url)
    async with engine.connect() as conn:
        result = await conn.run_sync(names)
    await engine.dispose()
    return result


async def test_a_checkout_goes_up_and_down_by_the_alembic_command(empty_url: str) -> None:
    alembic("upgrade", "head", AGNO_SQL_DATABASE_URL=empty_url)
    assert {"conversations", "messages", "tenant_activity"} <= await table_names(empty_url)
    alembic("check", AGNO_SQL_DATABASE_URL=empty_url)
    assert HEAD in alembic("current", AGNO_SQL_DATABASE_URL=empty_url)

    alembic("downgrade", "base", AGNO_SQL_DATABASE_URL=empty_url)

    assert await table_names(empty_url) == {VERSION_TABLE}


async def test_a_url_on_the_command_line_wins_over_the_environment(
    empty_url: str, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    alembic("-x", f"url={empty_url}", "upgrade", "head", DATABASE_URL=f"sqlite:///{other}")
    assert "messages" in await table_names(empty_url)
    assert not other.exists()


async def test_the_plain_environment_variable_is_heard_too(empty_url: str) -> None:
    alembic("upgrade", "head", DATABASE_URL=empty_url)
    assert "messages" in await table_names(empty_url)


async def test_the_sql_for_an_administrator_makes_the_same_schema(empty_url: str) -> None:
    script = alembic("-x", f"url={empty_url}", "upgrade", "head", "--sql")
    assert await table_names(empty_url) == set(), "--sql must not touch the database"
    engine = open_engine(empty_url)
    async with engine.connect() as conn:
        for statement in script.split(";\n"):
            if statement.strip() not in {"", "BEGIN", "COMMIT"}:
                await conn.exec_driver_sql(statement)
        await conn.commit()
    await engine.dispose()
    alembic("-x", f"url={empty_url}", "check")
    async with SQLMemory.open(empty_url, migrate=False) as memory:
        assert (await memory.add(Message.user("hello"), "alice")).seq == 1


async def test_rows_survive_every_step_up_and_down_that_keeps_their_tables(empty_url: str) -> None:
    call = ToolCall("c1", "look", '{"a": 1}')
    said = [
        Message.user("hello \0 there"),
        Message.assistant("", [call]),
        Message.tool("found", tool_call_id="c1"),
        Message.assistant("done"),
    ]
    async with SQLMemory.open(empty_url, migrate=True) as memory:
        stored = await memory.extend(said, "alice")
    engine = open_engine(empty_url)
    database = Database(engine)

    await database.write(lambda conn: migrate.downgrade(conn, "0001"))
    await database.write(migrate.upgrade)
    await database.write(migrate.check)

    await engine.dispose()
    async with SQLMemory.open(empty_url, migrate=False) as memory:
        assert await memory.get_messages("alice") == stored


async def test_api_keys_go_with_their_table_and_nothing_else_does(empty_url: str) -> None:
    async with SQLMemory.open(empty_url, migrate=True) as memory:
        await memory.add(Message.user("hello"), "alice")
        _, text = await memory.api_keys.create("shop")
    engine = open_engine(empty_url)
    database = Database(engine)
    await database.write(lambda conn: migrate.downgrade(conn, "0004"))
    await database.write(migrate.upgrade)
    await database.write(migrate.check)
    await engine.dispose()
    async with SQLMemory.open(empty_url, migrate=False) as memory:
        assert await memory.api_keys.check(text) is None
        assert await memory.size("alice") == 1
        _, text = await memory.api_keys.create("shop")
        assert await memory.api_keys.check(text) is not None


@pytest.mark.guarantee("G19")
async def test_a_failed_upgrade_leaves_the_database_as_it_was(empty_url: str) -> None:
    engine = open_engine(empty_url)
    database = Database(engine)
    # The last thing the migrations make exists already, under another shape.
    async with engine.begin() as conn:
        await conn.execute(text("CREATE TABLE tenant_daily_activity (x int)"))
    with pytest.raises(StoreError):
        await database.write(migrate.upgrade)
    await engine.dispose()
    assert await table_names(empty_url) == {"tenant_daily_activity"}


@pytest.mark.guarantee("G19")
async def test_tables_of_the_host_are_left_alone(empty_url: str) -> None:
    engine = open_engine(empty_url)
    async with engine.begin() as conn:
        await conn.execute(text("CREATE TABLE tasks (id int primary key, context_id varchar(36))"))
        await conn.execute(text("CREATE TABLE alembic_version (version_num varchar(32))"))
        await conn.execute(text("INSERT INTO alembic_version VALUES ('of-the-host')"))
    database = Database(engine)
    await database.write(migrate.upgrade)
    await database.write(migrate.check)
    await database.write(lambda conn: migrate.downgrade(conn, "base"))
    assert await table_names(empty_url) == {"tasks", "alembic_version", VERSION_TABLE}
    async with engine.connect() as conn:
        host = await conn.scalar(text("SELECT version_num FROM alembic_version"))
    assert host == "of-the-host"
    await engine.dispose()


async def test_a_change_by_hand_is_found(empty_url: str) -> None:
    engine = open_engine(empty_url)
    database = Database(engine)
    await database.write(migrate.upgrade)
    async with engine.begin() as conn:
        await conn.execute(text("DROP INDEX ix_conversations_last_active_at_user_id"))
    with pytest.raises(SchemaOutOfDateError, match="ix_conversations_last_active_at_user_id"):
        await database.write(migrate.check)
    await engine.dispose()


async def test_check_of_a_database_that_is_behind_names_the_reason(empty_url: str) -> None:
    engine = open_engine(empty_url)
    with pytest.raises(SchemaOutOfDateError, match="up to date"):
        await Database(engine).write(migrate.check)
    await engine.dispose()


async def test_an_unknown_revision_is_an_error_that_names_it(empty_url: str) -> None:
    engine = open_engine(empty_url)
    with pytest.raises(StoreError, match="7777"):
        await Database(engine).write(lambda conn: migrate.upgrade(conn, "7777"))
    await engine.dispose()


def test_the_head_that_the_library_expects_is_the_newest_migration() -> None:
    config = Config(CHECKOUT / "alembic.ini")
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


@pytest.mark.parametrize("path", MIGRATIONS, ids=lambda path: path.stem)
def test_each_migration_states_phase_and_locks_and_needs_nothing_of_the_library(
    path: Path,
) -> None:
    tree = ast.parse(path.read_text())
    told = ast.get_docstring(tree) or ""
    assert "\nPhase: " in told
    assert "\nLocks: " in told
    imported = {
        alias.name if isinstance(node, ast.Import) else node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not {name for name in imported if name.startswith("agno_sql")}


def test_every_table_of_tenants_puts_the_tenant_first_in_its_key() -> None:
    assert set(metadata.tables) - {"api_keys", "admin_sessions"} == TENANT_TABLES
    for name in TENANT_TABLES:
        key = metadata.tables[name].primary_key
        assert next(column.name for column in key) == "user_id", name


async def test_a_table_of_the_host_with_one_of_our_names_is_named(empty_url: str) -> None:
    engine = open_engine(empty_url)
    async with engine.begin() as conn:
        await conn.execute(text("CREATE TABLE messages (id int primary key)"))
    await engine.dispose()
    with pytest.raises(StoreError, match="table messages that isn't agno_sql's"):
        async with SQLMemory.open(empty_url, migrate=True):
            pass
    assert await table_names(empty_url) == {"messages"}
