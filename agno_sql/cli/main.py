"""The command line: what each command takes. What it does stands in a module of its own.

Those modules are loaded by the command that needs them, so that ``--help`` answers at once.
"""
# ruff: noqa: PLC0415  (as just said)

from __future__ import annotations

import io
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from agno_sql.cli.durations import parse_duration
from agno_sql.cli.text import PROGRAM
from agno_sql.errors import AgnoSQLError
from agno_sql.ids import DEFAULT_SESSION
from agno_sql.settings import DEFAULT_DATABASE_URL, database_url

_DEMO_DATABASE = "sqlite:///agno_sql_demo.db"
_FAILED = 1

_AnyDatabase = Annotated[
    str,
    typer.Option(
        "--database",
        default_factory=database_url,
        metavar="URL",
        help="Such as sqlite:///chat.db or postgresql://user:password@host/name. Else "
        f"AGNO_SQL_DATABASE_URL, DATABASE_URL, or {DEFAULT_DATABASE_URL}.",
        show_default=False,
    ),
]
_ServedDatabase = Annotated[
    str | None,
    typer.Option(
        "--database", metavar="URL", help="As for the other commands.", show_default=False
    ),
]
_DemoDatabase = Annotated[str, typer.Option("--database", metavar="URL", help="Where to store it.")]
_Session = Annotated[
    str, typer.Option("--session", metavar="ID", help="Which of the user's conversations.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print a JSON array.")]
_Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
_Duration = typer.Option(
    "--inactive",
    metavar="DURATION",
    parser=parse_duration,
    help="Only users without activity for so long: 30d, 12h, 45m, 90s or 2w.",
    show_default=False,
)

app = typer.Typer(
    name=PROGRAM,
    help="Durable, multi-tenant conversations of AI agents, kept in your own SQL database.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
db = typer.Typer(help="The tables and their version.", no_args_is_help=True)
app.add_typer(db, name="db")
keys = typer.Typer(help="The API keys of a server.", no_args_is_help=True)
app.add_typer(keys, name="keys")


def main() -> None:
    """Run the command line. Exits with 1 for an error, 2 for misuse, 130 for Ctrl-C."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115  (until the end)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        try:
            app(prog_name=PROGRAM)
        finally:
            sys.stdout.flush()
    except (AgnoSQLError, OSError) as error:
        from agno_sql.cli.console import say_error

        if isinstance(error, OSError):
            # What could not be written would be tried again when the interpreter ends.
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  (until the end)
        say_error(error)
        sys.exit(_FAILED)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"{PROGRAM} {version(PROGRAM)}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    del version


@app.command()
def demo(database: _DemoDatabase = _DEMO_DATABASE) -> None:
    """See it work: two users, two processes, one database."""
    from agno_sql.cli.demo import demo

    demo(database)


@app.command()
def chat(
    user: Annotated[str, typer.Option("--user", metavar="ID", help="Who is talking.")],
    *,
    session: _Session = DEFAULT_SESSION,
    database: _AnyDatabase,
) -> None:
    """Talk to an agent that remembers; lines from a pipe are answered one by one."""
    from agno_sql.cli.chat import chat

    chat(user, session=session, url=database)


@app.command()
def history(
    user: Annotated[str, typer.Argument(metavar="USER", help="Whose conversation.")],
    *,
    session: _Session = DEFAULT_SESSION,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="Only the newest N.", show_default=False),
    ] = None,
    as_json: _Json = False,
    database: _AnyDatabase,
) -> None:
    """Print a conversation."""
    from agno_sql.cli.history import history

    history(user, session=session, limit=limit, as_json=as_json, url=database)


@app.command()
def users(
    *,
    inactive: Annotated[timedelta | None, _Duration] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, help="At most N users.")
    ] = 50,
    as_json: _Json = False,
    database: _AnyDatabase,
) -> None:
    """List the users, longest idle first."""
    from agno_sql.cli.users import users

    users(idle_for=inactive or timedelta(0), limit=limit, as_json=as_json, url=database)


@app.command()
def cleanup(
    *,
    inactive: Annotated[timedelta, _Duration],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show how many would be deleted.")
    ] = False,
    yes: _Yes = False,
    database: _AnyDatabase,
) -> None:
    """Delete the users who have been inactive for long, with all their messages."""
    from agno_sql.cli.cleanup import cleanup

    cleanup(inactive, dry_run=dry_run, yes=yes, url=database)


@app.command()
def doctor(
    *,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, help="At most N findings of each check.")
    ] = 20,
    as_json: _Json = False,
    database: _AnyDatabase,
) -> None:
    """Look for what is broken, and for runs that wait to be recovered. Changes nothing."""
    from agno_sql.cli.doctor import doctor

    doctor(limit=limit, as_json=as_json, url=database)


@app.command()
def serve(  # noqa: PLR0913  (each is an option)
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODULE:AGENT]",
            help="An Agent of yours, or a function that opens one; else one by the options.",
            show_default=False,
        ),
    ] = None,
    *,
    host: Annotated[str, typer.Option("--host", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="0 takes any that is free.")
    ] = 8080,
    demo: Annotated[
        bool, typer.Option("--demo", help="Serve the offline demo model, which is no AI.")
    ] = False,
    database: _ServedDatabase = None,
    instructions: Annotated[
        str | None,
        typer.Option("--instructions", help="What the model is told first.", show_default=False),
    ] = None,
    auth: Annotated[
        list[str] | None,
        typer.Option(
            "--auth",
            help="none, api-keys or jwt, or the last two; none unless told.",
            show_default=False,
        ),
    ] = None,
    jwt_key: Annotated[
        Path | None,
        typer.Option(
            "--jwt-key",
            metavar="FILE",
            help="A public key in PEM, or a JWKS file.",
            show_default=False,
        ),
    ] = None,
    jwt_issuer: Annotated[str, typer.Option("--jwt-issuer", help="What iss has to be.")] = "",
    jwt_audience: Annotated[str, typer.Option("--jwt-audience", help="What aud has to be.")] = "",
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--cors-origin", help="A page that may call it: https://a.example.", show_default=False
        ),
    ] = None,
    max_body: Annotated[
        int, typer.Option("--max-body", min=1, metavar="BYTES", help="The largest request.")
    ] = 1024 * 1024,
    max_concurrency: Annotated[
        int, typer.Option("--max-concurrency", min=1, metavar="N", help="Requests at once.")
    ] = 1000,
    grace: Annotated[
        timedelta | None,
        typer.Option(
            "--grace",
            metavar="DURATION",
            parser=parse_duration,
            help="How long runs may go on when it is told to stop; 20s unless told.",
            show_default=False,
        ),
    ] = None,
    a2a: Annotated[bool, typer.Option("--a2a", help="Serve other agents too, by A2A.")] = False,
    a2a_url: Annotated[
        str | None,
        typer.Option(
            "--a2a-url",
            metavar="URL",
            help="Where other agents reach it: https://agent.example.com.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve an agent over HTTP, for many users."""
    from agno_sql.cli.serve import Serving, serve

    serve(
        Serving(
            target=target,
            demo=demo,
            url=database,
            instructions=instructions,
            host=host,
            port=port,
            auth=auth or ("none",),
            jwt_key=jwt_key,
            jwt_issuer=jwt_issuer,
            jwt_audience=jwt_audience,
            cors_origins=cors_origin or (),
            max_body_bytes=max_body,
            max_concurrency=max_concurrency,
            grace=timedelta(seconds=20) if grace is None else grace,
            a2a=a2a,
            a2a_url=a2a_url,
        )
    )


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    *,
    admin: Annotated[
        bool, typer.Option("--admin", help="It may also list and erase users.")
    ] = False,
    database: _AnyDatabase,
) -> None:
    """Make an API key and print it, once."""
    from agno_sql.cli.keys import create

    create(name, is_admin=admin, url=database)


@keys.command("list")
def list_keys(*, as_json: _Json = False, database: _AnyDatabase) -> None:
    """List the API keys, without their secrets."""
    from agno_sql.cli.keys import listed

    listed(as_json=as_json, url=database)


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="Its id, as list shows it.")],
    *,
    database: _AnyDatabase,
) -> None:
    """Revoke an API key, from now on."""
    from agno_sql.cli.keys import revoke

    revoke(key_id, url=database)


@db.command()
def upgrade(
    revision: Annotated[
        str, typer.Argument(metavar="[REVISION]", help="Where to go; head is the newest.")
    ] = "head",
    *,
    database: _AnyDatabase,
) -> None:
    """Make the tables, or bring them up to a newer revision."""
    from agno_sql.cli.db import upgrade

    upgrade(revision, url=database)


@db.command()
def downgrade(
    revision: Annotated[
        str, typer.Argument(metavar="REVISION", help="Where to go; base removes the tables.")
    ],
    *,
    yes: _Yes = False,
    database: _AnyDatabase,
) -> None:
    """Bring the tables back to an older revision. Rows may be lost."""
    from agno_sql.cli.db import downgrade

    downgrade(revision, yes=yes, url=database)


@db.command()
def current(database: _AnyDatabase) -> None:
    """Print the revision of the tables."""
    from agno_sql.cli.db import current

    current(url=database)


@db.command()
def check(database: _AnyDatabase) -> None:
    """Compare tables, columns, foreign keys and indexes with what this version needs."""
    from agno_sql.cli.db import check

    check(url=database)
