"""Column types that behave the same on every database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import JSON, DateTime, String, TypeDecorator, type_coerce
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import NullType

from agno_sql.ids import MAX_ID_CHARACTERS, MAX_RUN_ID_CHARACTERS

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Dialect, Label

# SQLite compares code points already; without "C" PostgreSQL would order ids by a language's rules.
Id: Final = String(MAX_ID_CHARACTERS).with_variant(
    String(MAX_ID_CHARACTERS, collation="C"), "postgresql"
)
RunId: Final = String(MAX_RUN_ID_CHARACTERS).with_variant(
    String(MAX_RUN_ID_CHARACTERS, collation="C"), "postgresql"
)

Json: Final = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def sqlite_time(at: datetime) -> str:
    """Return *at* as SQLite stores it; the text sorts as the time does."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def as_stored(column: ColumnElement[Any]) -> Label[Any]:
    """Return *column* as the driver hands it over.

    What can't be decoded is then found where the key of its row is known.
    """
    return type_coerce(column, NullType()).label(column.key)


class UTCDateTime(TypeDecorator[datetime]):
    """An aware time in UTC: timestamptz on PostgreSQL, ISO text of UTC on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Hand over UTC; SQLite's driver would drop an offset without a word."""
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002  (SQLAlchemy's signature)
    ) -> datetime | None:
        """Return UTC whatever the session's time zone is."""
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
