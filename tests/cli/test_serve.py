from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import jwt
import pytest

from agno_sql.cli.serve import _OneLine
from agno_sql.testing import Reply, ScriptedOpenAI
from tests.support.http import server_process
from tests.support.postgres import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import CommandLine

AGENTS = "tests.server.agents"
MISSING = """
import sys
sys.modules["fastapi"] = None
from agno_sql.cli.main import main
sys.argv = ["agno-sql", "serve", "--demo"]
main()
"""


@pytest.mark.guarantee("G74")
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])  # noqa: S104
def test_without_authentication_it_does_not_listen_to_other_machines(
    cli: CommandLine, host: str
) -> None:
    done = cli("serve", "--demo", "--host", host)
    assert done.returncode == 2
    assert "for this machine only" in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.guarantee("G74")
def test_without_authentication_it_says_so_and_answers_for_this_machine_only(
    cli: CommandLine, database: str
) -> None:
    del cli
    with server_process("--demo", "--database", database) as server, server.client() as client:
        server.logged(re.compile("without authentication, for this machine only"))
        (page,) = server.logged(re.compile(r"Chat in a browser: (\S+)")).groups()
        assert client.get(page).headers["content-type"].startswith("text/html")
        assert client.get("/healthz").status_code == 200
        told = client.get("/healthz", headers={"host": "evil.example"})
        assert (told.status_code, told.json()["code"]) == (421, "unknown_host")


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--auth", "basic", "--demo"], "--auth is one of"),
        (["--auth", "none", "--auth", "jwt", "--demo"], "goes with no other"),
        ([f"{AGENTS}:shop", "--demo"], "leave out --demo"),
        (["shop", "--port", "0"], "as module:agent"),
        (["--grace", "soon", "--demo"], "soon"),
        (["--port", "70000", "--demo"], "65535"),
        (["--cors-origin", "*", "--demo"], "name the pages"),
        (["--a2a-url", "https://a.example", "--demo"], "goes with --a2a"),
        (["--a2a", "--auth", "jwt", "--host", "::", "--demo"], "say --a2a-url"),
    ],
)
def test_misuse_is_told_with_exit_code_2(cli: CommandLine, arguments: list[str], told: str) -> None:
    done = cli("serve", *arguments)
    assert done.returncode == 2
    assert told in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    "arguments, told",
    [
        ([], "OPENAI_API_KEY"),
        (["no_such_module:agent"], "there is no module 'no_such_module'"),
        ([f"{AGENTS}:missing"], "has no 'missing'"),
        ([f"{AGENTS}:no_agent"], "must be an Agent"),
        ([f"{AGENTS}:nobody"], "must be an Agent"),
        (["--demo", "--auth", "jwt"], "takes one key"),
        (["--demo", "--database", "mysql://x"], "not supported"),
    ],
)
def test_what_cannot_be_served_is_told_in_a_line(
    cli: CommandLine, arguments: list[str], told: str
) -> None:
    done = cli("serve", *arguments, env={"PYTHONPATH": str(CHECKOUT)})
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert told in done.stderr


def test_a_port_that_is_taken_is_told_in_a_line(cli: CommandLine, database: str) -> None:
    with server_process("--demo", "--database", database) as server:
        port = server.url.rpartition(":")[2]
        done = cli("serve", "--demo", "--database", database, "--port", port)
    assert done.returncode == 1
    assert "in use" in done.stderr


def test_without_the_extra_the_error_names_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MISSING], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "pip install 'agno-sql[server]'" in done.stderr


def test_the_configured_agent_has_the_model_and_the_instructions_of_the_command(
    database: str, cli: CommandLine
) -> None:
    del cli
    with (
        ScriptedOpenAI([Reply(text="Ahoy")]) as model,
        server_process(
            *("--database", database, "--instructions", "Talk like a pirate."),
            OPENAI_BASE_URL=model.base_url,
            AGNO_SQL_MODEL="parrot-1",
        ) as server,
        server.client() as client,
    ):
        told = client.post("/chat", json={"user_id": "a", "message": "x"})
        assert told.json()["reply"] == "Ahoy"
        (request,) = model.requests
    assert request.body["model"] == "parrot-1"
    assert request.body["messages"][0] == {"role": "system", "content": "Talk like a pirate."}


class TestKeys:
    """Made, listed and revoked; the text is printed once and alone."""

    def test_are_made_listed_and_revoked(self, cli: CommandLine, database: str) -> None:
        at = ("--database", database)
        cli("db", "upgrade", *at)
        made = cli("keys", "create", "shop", *at)
        admin = cli("keys", "create", "operator", "--admin", *at)
        key_id = made.stdout.split("_")[2]
        assert re.fullmatch(r"agno_sql_[0-9a-f]{12}_[\w-]{43}\n", made.stdout)
        assert "can't be shown again" in made.stderr
        listed = json.loads(cli("keys", "list", "--json", *at).stdout)
        assert [(key["name"], key["scope"]) for key in listed] == [
            ("shop", "users"),
            ("operator", "admin"),
        ]
        assert made.stdout.strip()[-43:] not in cli("keys", "list", *at).stdout

        with server_process(
            *("--demo", *at, "--auth", "api-keys", "--host", "0.0.0.0")  # noqa: S104
        ) as server:
            port = server.url.rpartition(":")[2]
            client = server.client()
            client.base_url = f"http://127.0.0.1:{port}"
            with client:
                headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
                params = {"user_id": "a"}
                assert client.get("/sessions", params=params, headers=headers).is_success
                assert client.get("/sessions", params={"user_id": "a"}).status_code == 401
                assert client.get("/users", headers=headers).status_code == 403
                of_admin = {"Authorization": f"Bearer {admin.stdout.strip()}"}
                assert client.get("/users", headers=of_admin).status_code == 200
                assert cli("keys", "revoke", key_id, *at).stdout == f"revoked {key_id}\n"
                told = client.get("/sessions", params=params, headers=headers)
                assert told.status_code == 401
        again = cli("keys", "revoke", key_id, *at)
        assert (again.returncode, again.stderr) == (1, f"error: there is no valid key {key_id}\n")
        assert json.loads(cli("keys", "list", "--json", *at).stdout)[0]["revoked_at"]

    def test_that_are_none_are_a_note(self, cli: CommandLine, database: str) -> None:
        cli("db", "upgrade", "--database", database)
        assert cli("keys", "list", "--database", database).stderr == "no keys\n"


def test_tokens_are_known_by_a_secret_of_the_environment(database: str) -> None:
    secret = "a secret of the tests, long enough for HS256"  # noqa: S105
    said = {"sub": "alice", "iss": "i", "aud": "a", "exp": 4102444800}
    options = ("--auth", "jwt", "--jwt-issuer", "i", "--jwt-audience", "a")
    with (
        server_process(
            "--demo", "--database", database, *options, AGNO_SQL_JWT_SECRET=secret
        ) as server,
        server.client() as client,
    ):
        headers = {"Authorization": f"Bearer {jwt.encode(said, secret)}"}
        told = client.post("/chat", json={"message": "My name is Alice"}, headers=headers)
        assert told.json()["user_id"] == "alice"
        assert client.post("/chat", json={"message": "x"}).status_code == 401


def test_a_logged_line_stays_one_whatever_it_tells() -> None:
    record = logging.LogRecord("x", logging.INFO, "x", 1, "a\nforged %s", ("b\r\x1b[2J",), None)
    assert _OneLine("%(levelname)s %(message)s").format(record) == "INFO a forged b\ufffd\ufffd[2J"


def test_the_lines_of_a_logged_error_are_no_lines_of_the_log() -> None:
    error = RuntimeError("oops\n2026-11-25 INFO agno_sql: forged \x1b[31m")
    about = (RuntimeError, error, None)
    record = logging.LogRecord("x", logging.ERROR, "x", 1, "failed", (), about)
    first, *others = _OneLine("%(levelname)s %(message)s").format(record).split("\n")
    assert first == "ERROR failed"
    assert others[-1] == "    2026-11-25 INFO agno_sql: forged \ufffd[31m"
    assert all(line.startswith("    ") for line in others)


def test_sigterm_ends_a_server_that_has_not_begun_to_serve() -> None:
    command = [sys.executable, "-m", "agno_sql", "serve", f"{AGENTS}:never", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT) as process:
        try:
            assert process.stderr is not None
            assert "opening\n" in iter(process.stderr.readline, "")
            process.terminate()
            assert process.wait(60) == -signal.SIGTERM
        finally:
            process.kill()
