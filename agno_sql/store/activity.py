"""Who was active when: what an operator asks for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Select, Tuple, and_, func, literal, or_, select, tuple_, type_coerce
from sqlalchemy.types import NullType

from agno_sql.ids import shown
from agno_sql.message import Session, UserActivity
from agno_sql.store.rows import beginning
from agno_sql.store.run_rows import decoding
from agno_sql.store.tables import conversations, messages
from agno_sql.store.types import Id, UTCDateTime

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement, Row
    from sqlalchemy.ext.asyncio import AsyncConnection

_TITLE_CHARACTERS: Final = 100
_ALL: Final = {"cross_tenant": "operators look for users among all"}


async def last_activity(conn: AsyncConnection, user_id: str) -> datetime | None:
    """Return when the user last had a message stored; ``None`` for one who is unknown."""
    at: datetime | None = await conn.scalar(
        select(func.max(conversations.c.last_active_at)).where(conversations.c.user_id == user_id)
    )
    return at


async def sessions(
    conn: AsyncConnection, user_id: str, *, limit: int, after: Session | None
) -> list[Session]:
    """Return a page of the user's conversations, latest activity first.

    Raises:
        CorruptRecordError: A row was not written by this library; names whose it is.
    """
    c = conversations.c
    query = _sessions(user_id)
    if after is not None:
        query = query.where(
            tuple_(c.last_active_at, c.session_id)
            < tuple_(literal(after.last_active_at, UTCDateTime), literal(after.session_id, Id))
        )
    query = query.order_by(c.last_active_at.desc(), c.session_id.desc()).limit(limit)
    with decoding(f"a session of user {shown(user_id)}"):
        return [_session(row) for row in await conn.execute(query)]


async def session(conn: AsyncConnection, key: tuple[str, str]) -> Session | None:
    """Return one conversation, ``None`` for one that does not exist; raises as ``sessions``."""
    query = _sessions(key[0]).where(conversations.c.session_id == key[1])
    with decoding(f"session {shown(key[1])} of user {shown(key[0])}"):
        row = (await conn.execute(query)).one_or_none()
    return None if row is None else _session(row)


async def inactive_users(
    conn: AsyncConnection, until: datetime, *, limit: int, after: UserActivity | None
) -> list[UserActivity]:
    """Return a page of the users without activity after *until*, longest idle first."""
    place, query = _users()
    query = query.where(place[0] <= until)
    if after is not None:
        query = query.where(tuple_(*place) > _place_of(after))
    return await _activities(conn, query.order_by(*place).limit(limit))


async def latest_users(
    conn: AsyncConnection, *, limit: int, after: UserActivity | None
) -> list[UserActivity]:
    """Return a page of all users, latest activity first."""
    place, query = _users()
    if after is not None:
        query = query.where(tuple_(*place) < _place_of(after))
    return await _activities(
        conn, query.order_by(*(column.desc() for column in place)).limit(limit)
    )


async def users_by_prefix(
    conn: AsyncConnection, prefix: str, *, limit: int, after: str
) -> list[UserActivity]:
    """Return a page of the users whose ids begin with *prefix*, in the order of their ids."""
    c = conversations.c
    # A range of the primary key, whose columns compare code point by code point.
    query = (
        select(
            c.user_id,
            func.max(c.last_active_at).label("last_active_at"),
            func.count().label("sessions"),
            func.sum(c.message_count).label("messages"),
        )
        .where(c.user_id > after if after >= prefix else c.user_id >= prefix)
        .group_by(c.user_id)
        .order_by(c.user_id)
        .limit(limit)
    )
    if (end := _end_of(prefix)) is not None:
        query = query.where(c.user_id < end)
    return await _activities(conn, query)


def _users() -> tuple[tuple[ColumnElement[datetime], ColumnElement[str]], Select[*tuple[Any, ...]]]:
    """Return a query for all users, and what orders it by their last activity."""
    c = conversations.alias("c").c
    later, own = conversations.alias("later").c, conversations.alias("own").c
    # A user stands at the place of their latest session. Walking the index on last_active_at
    # needs no grouping of all conversations.
    has_later = (
        select(1)
        .where(
            later.user_id == c.user_id,
            or_(
                later.last_active_at > c.last_active_at,
                and_(later.last_active_at == c.last_active_at, later.session_id > c.session_id),
            ),
        )
        .exists()
    )
    totals = select(func.count()).where(own.user_id == c.user_id).scalar_subquery()
    kept = select(func.sum(own.message_count)).where(own.user_id == c.user_id).scalar_subquery()
    query = select(
        c.user_id, c.last_active_at, totals.label("sessions"), kept.label("messages")
    ).where(~has_later)
    return (c.last_active_at, c.user_id), query


def _place_of(user: UserActivity) -> Tuple:
    return tuple_(literal(user.last_active_at, UTCDateTime), literal(user.user_id, Id))


async def _activities(conn: AsyncConnection, query: Select[*tuple[Any, ...]]) -> list[UserActivity]:
    with decoding("when a user was last active"):
        return [
            UserActivity(
                user_id=row.user_id,
                sessions=row.sessions,
                messages=int(row.messages),
                last_active_at=row.last_active_at,
            )
            for row in await conn.execute(query.execution_options(**_ALL))
        ]


def _end_of(prefix: str) -> str | None:
    """Return the first text behind all that begin with *prefix*; ``None`` if nothing is."""
    stem = prefix.rstrip(chr(sys.maxunicode))
    if not stem:
        return None
    following = ord(stem[-1]) + 1
    # Surrogates are no characters: no database can be asked for one.
    return stem[:-1] + chr(0xE000 if following == 0xD800 else following)  # noqa: PLR2004


def _sessions(user_id: str) -> Select[*tuple[Any, ...]]:
    c, m = conversations.c, messages.c
    title = (
        select(func.substr(m.content, 1, _TITLE_CHARACTERS))
        .where(m.user_id == c.user_id, m.session_id == c.session_id, m.role == "user")
        .order_by(m.seq)
        .limit(1)
        .scalar_subquery()
    )
    return select(
        c.user_id,
        c.session_id,
        c.message_count,
        c.created_at,
        c.last_active_at,
        type_coerce(title, NullType()).label("title"),
    ).where(c.user_id == user_id)


def _session(row: Row[*tuple[Any, ...]]) -> Session:
    user_id, session_id, message_count, created_at, last_active_at, title = row
    return Session(
        user_id=user_id,
        session_id=session_id,
        message_count=message_count,
        created_at=created_at,
        last_active_at=last_active_at,
        title=None if title is None else beginning(title, (user_id, session_id)),
    )
