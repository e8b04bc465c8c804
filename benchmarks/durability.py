"""Asking the connections that write how durable their commits are."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any, Final

from sqlalchemy import Pool, event

POSTGRES_QUESTIONS: Final = ("SHOW fsync", "SHOW synchronous_commit")
SQLITE_QUESTIONS: Final = ("PRAGMA journal_mode", "PRAGMA synchronous")

_SYNCHRONOUS: Final = {"0": "OFF", "1": "NORMAL", "2": "FULL", "3": "EXTRA"}


def questions(database: str) -> tuple[str, ...]:
    """Return the statements that tell how durable a connection's commits are."""
    return SQLITE_QUESTIONS if database == "sqlite" else POSTGRES_QUESTIONS


def named(question: str, value: object) -> tuple[str, str]:
    """Return the setting's name and its value in words."""
    setting, text = question.split()[1], str(value)
    return setting, _SYNCHRONOUS.get(text, text) if setting == "synchronous" else text


def together(settings: list[tuple[str, str]]) -> dict[str, str]:
    """Return each setting with the values that connections have told, which should be one."""
    names = dict.fromkeys(name for name, _ in settings)
    return {n: " | ".join(sorted({v for name, v in settings if name == n})) for n in names}


class PoolWitness:
    """Asks each connection of SQLAlchemy's pools, once, when it is first given out for work.

    That is after the hooks that prepare a connection, whoever made its engine.
    """

    def __init__(self, database: str) -> None:
        self._questions = questions(database)
        self._told: list[tuple[str, str]] = []
        event.listen(Pool, "checkout", self._ask)

    @property
    def told(self) -> dict[str, str]:
        """What the connections have told."""
        return together(self._told)

    def _ask(self, connection: Any, record: Any, _proxy: Any) -> None:
        if record.info.get("durability") is not None:
            return
        record.info["durability"] = "asked"
        cursor = connection.cursor()
        for question in self._questions:
            cursor.execute(question)
            self._told.append(named(question, cursor.fetchone()[0]))
        cursor.close()
        # Asking began a transaction; whoever gets the connection expects none.
        connection.rollback()


def of_connection(connection: sqlite3.Connection) -> dict[str, str]:
    """Return what an SQLite connection tells."""
    return together([named(q, connection.execute(q).fetchone()[0]) for q in SQLITE_QUESTIONS])


def of_new_sqlite_connection(path: str) -> dict[str, str]:
    """Return what a connection with the defaults of Python's driver tells about the file.

    For libraries that keep their connections to themselves and change no setting but the
    journal's mode, which is a property of the file.
    """
    with closing(sqlite3.connect(path)) as connection:
        told = of_connection(connection)
    return {name: f"{value} (a new connection's)" for name, value in told.items()}
