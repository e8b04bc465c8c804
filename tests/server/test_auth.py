"""Who may do what, tried as an attacker would."""

from __future__ import annotations

import base64
import hmac
import json
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from agno_sql.errors import InvalidOptionError
from agno_sql.message import Message
from agno_sql.server import ApiKeyAuth, JWTAuth
from tests.agent.models import ScriptedModel, agent_of
from tests.support.http import served

if TYPE_CHECKING:
    import httpx

    from agno_sql.memory.sql import SQLMemory

SECRET = "a secret of the tests, long enough for HS256"  # noqa: S105
CHECKED = {"issuer": "https://issuer.example", "audience": "agno"}
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())


def pem(key: Any) -> str:
    public: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return public.decode()


def jwk(key: Any, kid: str, **more: Any) -> dict[str, Any]:
    algorithm = jwt.get_algorithm_by_name(
        "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
    )
    described: dict[str, Any] = json.loads(algorithm.to_jwk(key.public_key()))
    return described | {"kid": kid} | more


def claims(**more: Any) -> dict[str, Any]:
    """Return what a good token says; ``None`` leaves a claim out."""
    now = datetime.now(UTC)
    said = {
        "sub": "alice",
        "iss": CHECKED["issuer"],
        "aud": CHECKED["audience"],
        "exp": now + timedelta(minutes=5),
    } | more
    return {name: value for name, value in said.items() if value is not None}


def token(key: Any = SECRET, algorithm: str = "HS256", kid: str | None = None, **more: Any) -> str:
    headers = None if kid is None else {"kid": kid}
    return jwt.encode(claims(**more), key, algorithm=algorithm, headers=headers)


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def b64(data: bytes | dict[str, Any]) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def by_hand(header: dict[str, Any], key: bytes | None, **more: Any) -> str:
    """Return a token that no library would make."""
    said = claims(**more)
    said["exp"] = int(said["exp"].timestamp()) if hasattr(said["exp"], "timestamp") else said["exp"]
    signed = f"{b64(header)}.{b64(said)}"
    signature = b"" if key is None else hmac.digest(key, signed.encode(), "sha256")
    return f"{signed}.{b64(signature)}"


async def asks(client: httpx.AsyncClient, text: str, **params: str) -> int:
    told = await client.get("/sessions", params=params, headers=bearer(text))
    if told.status_code == 401:
        assert told.headers["www-authenticate"] == "Bearer"
        assert told.json()["code"] == "unauthenticated"
    return told.status_code


class TestATokenOfAUser:
    """Names its user, and only that one."""

    @pytest.mark.guarantee("G69")
    async def test_names_the_user_and_no_other(self, sqlite_memory: SQLMemory) -> None:
        auth = [JWTAuth.of_secret(SECRET, **CHECKED)]
        model = ScriptedModel("hello", "again")
        await sqlite_memory.add(Message.user("of bob"), "bob")
        async with served(agent_of(model, sqlite_memory), auth=auth) as client:
            headers = bearer(token())
            told = await client.post("/chat", json={"message": "x"}, headers=headers)
            assert told.json()["user_id"] == "alice"
            body = {"message": "x", "user_id": "alice"}
            assert (await client.post("/chat", json=body, headers=headers)).status_code == 200

            for ask in [
                client.post("/chat", json=body | {"user_id": "bob"}, headers=headers),
                client.get("/sessions", params={"user_id": "bob"}, headers=headers),
                client.get("/messages", params={"user_id": "bob"}, headers=headers),
                client.delete("/messages", params={"user_id": "bob"}, headers=headers),
                client.get("/run", params={"user_id": "bob", "run_id": "r"}, headers=headers),
                client.post("/run/cancel", json={"user_id": "bob", "run_id": "r"}, headers=headers),
                client.delete("/user", params={"user_id": "alice"}, headers=headers),
                client.get("/users", headers=headers),
            ]:
                refused = await ask
                assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert await sqlite_memory.size("bob") == 1

    async def test_with_the_scope_is_an_administrators(self, sqlite_memory: SQLMemory) -> None:
        auth = [JWTAuth.of_secret(SECRET, **CHECKED)]
        await sqlite_memory.add(Message.user("x"), "bob")
        async with served(agent_of(ScriptedModel(), sqlite_memory), auth=auth) as client:
            for scope, status in [
                ("agno_sql:admin", 200),
                ("read agno_sql:admin", 200),
                ("agno_sql:administrator", 403),
                (["agno_sql:admin"], 403),
            ]:
                headers = bearer(token(scope=scope))
                assert (await client.get("/users", headers=headers)).status_code == status
            headers = bearer(token(scope="agno_sql:admin"))
            told = await client.get("/sessions", params={"user_id": "bob"}, headers=headers)
            assert told.status_code == 403
            told = await client.delete("/user", params={"user_id": "bob"}, headers=headers)
            assert told.json()["messages"] == 1

    @pytest.mark.guarantee("G69")
    @pytest.mark.parametrize("kind", ["secret", "RS256", "ES256", "jwks"])
    async def test_is_refused_if_anything_about_it_is_wrong(
        self, sqlite_memory: SQLMemory, kind: str
    ) -> None:
        keys = {"keys": [jwk(RSA_KEY, "k1"), jwk(EC_KEY, "k2"), jwk(EC_KEY, "k3", use="enc")]}
        auth, sign = {
            "secret": (JWTAuth.of_secret(SECRET, **CHECKED), partial(token, SECRET, "HS256")),
            "RS256": (
                JWTAuth.of_key_file(pem(RSA_KEY), **CHECKED),
                partial(token, RSA_KEY, "RS256"),
            ),
            "ES256": (JWTAuth.of_key_file(pem(EC_KEY), **CHECKED), partial(token, EC_KEY, "ES256")),
            "jwks": (
                JWTAuth.of_key_file(json.dumps(keys), **CHECKED),
                partial(token, EC_KEY, "ES256", kid="k2"),
            ),
        }[kind]
        past = datetime.now(UTC) - timedelta(minutes=1)
        future = datetime.now(UTC) + timedelta(minutes=1)
        kid = {"kid": "k2"} if kind == "jwks" else {}
        bad = {
            "expired": sign(exp=past),
            "without exp": sign(exp=None),
            "not yet valid": sign(nbf=future),
            "of another issuer": sign(iss="https://evil.example"),
            "without issuer": sign(iss=None),
            "for another audience": sign(aud="other"),
            "without audience": sign(aud=None),
            "without sub": sign(sub=None),
            "empty sub": sign(sub=""),
            "sub with a line break": sign(sub="alice\nbob"),
            "sub too long": sign(sub="a" * 256),
            "alg none": by_hand({"alg": "none", "typ": "JWT"} | kid, None),
            "alg None": by_hand({"alg": "None"} | kid, None),
            "no alg": by_hand({"typ": "JWT"} | kid, SECRET.encode()),
            "the public key as a secret": by_hand({"alg": "HS256"} | kid, pem(RSA_KEY).encode()),
            "the other public key": by_hand({"alg": "HS256"} | kid, pem(EC_KEY).encode()),
            "an empty secret": by_hand({"alg": "HS256"} | kid, b""),
            "another key": token(OTHER_KEY, "ES256", kid.get("kid")),
            "its own key": by_hand({"alg": "HS256", "jwk": jwk(OTHER_KEY, "k")} | kid, b"x"),
            "a critical extension": by_hand({"alg": "HS256", "crit": ["x"]} | kid, SECRET.encode()),
            "an unknown kid": sign(kid="k9") if kind == "jwks" else "a.b.c",
            "the kid of another kind": sign(kid="k1") if kind == "jwks" else "..",
            "a kid for encryption": sign(kid="k3") if kind == "jwks" else ".",
            "a path as kid": sign(kid="../../dev/null") if kind == "jwks" else "x",
            "altered": sign()[:-4] + "AAAA",
            "no token": "null",
            "deep": b64(b"[" * 20000) + ".e30.e30",
        }
        async with served(agent_of(ScriptedModel(), sqlite_memory), auth=[auth]) as client:
            assert await asks(client, sign()) == 200
            late = sign(exp=datetime.now(UTC) - timedelta(seconds=3))
            assert await asks(client, late) == 200, "clocks may differ a little"
            for why, text in bad.items():
                assert await asks(client, text) == 401, why

    @pytest.mark.parametrize(
        "sent",
        [
            [],
            [""],
            ["Bearer"],
            ["Basic YTpi"],
            [f"Token {token()}"],
            [token()],
            [f"Bearer {token()}", f"Bearer {token()}"],
            [f"Bearer {token()}, Bearer {token()}"],
        ],
    )
    async def test_has_to_be_the_one_bearer_token(
        self, sqlite_memory: SQLMemory, sent: list[str]
    ) -> None:
        auth = [JWTAuth.of_secret(SECRET, **CHECKED)]
        async with served(agent_of(ScriptedModel(), sqlite_memory), auth=auth) as client:
            headers = [("Authorization", value) for value in sent]
            assert (await client.get("/sessions", headers=headers)).status_code == 401
            params = {"access_token": token()}
            assert (await client.get("/sessions", params=params)).status_code == 401
            assert (await client.get("/healthz")).status_code == 200
            assert (await client.get("/readyz")).status_code == 200


class TestTheKeysOfTokens:
    """Are checked before a server starts with them."""

    @pytest.mark.parametrize("secret", ["", "short", "x" * 31])
    def test_a_short_secret_is_refused(self, secret: str) -> None:
        with pytest.raises(InvalidOptionError, match="32 bytes"):
            JWTAuth.of_secret(secret, **CHECKED)

    @pytest.mark.parametrize("missing", ["issuer", "audience"])
    def test_issuer_and_audience_are_needed(self, missing: str) -> None:
        with pytest.raises(InvalidOptionError, match="issuer and an audience"):
            JWTAuth.of_secret(SECRET, **(CHECKED | {missing: ""}))

    def test_keys_of_other_kinds_are_refused(self) -> None:
        private = EC_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        other_curve = pem(ec.generate_private_key(ec.SECP384R1()))
        short = pem(rsa.generate_private_key(65537, 1024))  # noqa: S505
        secret = {"kty": "oct", "k": b64(b"x" * 32), "kid": "k"}
        for text in (
            "",
            "no key",
            private,
            other_curve,
            short,
            "{}",
            "{",
            '{"keys": []}',
            '{"keys": [1]}',
            '{"keys": 1}',
            json.dumps({"keys": [secret]}),
            json.dumps({"keys": [jwk(EC_KEY, "k") | {"kty": "RSA"}]}),
            json.dumps({"keys": [{n: v for n, v in jwk(EC_KEY, "").items() if n != "kid"}]}),
        ):
            with pytest.raises(InvalidOptionError):
                JWTAuth.of_key_file(text, **CHECKED)


class TestAnApiKey:
    """Of a back end that is trusted to say which user it acts for."""

    @pytest.mark.guarantee("G70")
    async def test_acts_for_any_user_and_only_an_admin_key_across_them(
        self, memory: SQLMemory
    ) -> None:
        _, plain = await memory.api_keys.create("shop")
        _, admin = await memory.api_keys.create("operator", is_admin=True)
        model = ScriptedModel(then="hi")
        auth = [ApiKeyAuth(memory.api_keys), JWTAuth.of_secret(SECRET, **CHECKED)]
        async with served(agent_of(model, memory), auth=auth) as client:
            for user in ("alice", "bob"):
                body = {"user_id": user, "message": "x"}
                told = await client.post("/chat", json=body, headers=bearer(plain))
                assert told.json()["user_id"] == user
            nobody = await client.post("/chat", json={"message": "x"}, headers=bearer(plain))
            assert (nobody.status_code, nobody.json()["code"]) == (422, "invalid_user_id")
            for text, status in ((plain, 403), (admin, 200)):
                assert (await client.get("/users", headers=bearer(text))).status_code == status
                erased = await client.delete(
                    "/user", params={"user_id": "bob"}, headers=bearer(text)
                )
                assert erased.status_code == status
            assert await asks(client, token()) == 200, "tokens of users are known beside"

    @pytest.mark.guarantee("G70")
    async def test_is_refused_when_it_is_revoked_or_not_the_one(self, memory: SQLMemory) -> None:
        key, text = await memory.api_keys.create("shop")
        _, other = await memory.api_keys.create("other")
        prefix, secret = text[: -len(text.rpartition("_")[2])], text[-43:]
        auth = [ApiKeyAuth(memory.api_keys)]
        async with served(agent_of(ScriptedModel(), memory), auth=auth) as client:
            assert await asks(client, text, user_id="a") == 200
            for bad in (
                text[:-1],
                text + "x",
                text.upper(),
                text.replace(key.id, "0" * 12),
                f"agno_sql_{key.id}_{other[-43:]}",
                f"agno_sql_{key.id}_{sha256(secret.encode()).hexdigest()[:43]}",
                f"agno_sql_{key.id}_",
                f"agno_sql_{key.id}",
                prefix,
                secret,
                f"{text}%C3%A9",
                f"agno_sql_{key.id[:-2]}%'_{secret}",
            ):
                assert await asks(client, bad, user_id="a") == 401, bad
            assert await memory.api_keys.revoke(key.id)
            assert await asks(client, text, user_id="a") == 401
            assert not await memory.api_keys.revoke(key.id)
