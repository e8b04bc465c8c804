"""JSON Web Tokens: each is of one user, its ``sub``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from agno_sql.errors import InvalidOptionError
from agno_sql.ids import named_user_id
from agno_sql.server.auth.caller import Caller

if TYPE_CHECKING:
    from typing import Self, TypeAlias

    _Keys: TypeAlias = dict[str | None, tuple[Any, str]]

ADMIN_SCOPE: Final = "agno_sql:admin"
"""The word in a token's ``scope`` that makes its user an administrator."""

_LEAST_SECRET_BYTES: Final = 32
_LEAST_RSA_BITS: Final = 2048
_LEEWAY_S: Final = 10
_REQUIRED: Final = ("exp", "iss", "aud", "sub")


class JWTAuth:
    """Recognises the tokens of one issuer for one audience.

    The algorithm belongs to the key and is never taken from a token: a public key is no secret of
    HS256, and ``none`` is nobody's. Made by ``of_secret`` or ``of_key_file``.
    """

    def __init__(self, keys: _Keys, *, issuer: str, audience: str) -> None:
        if not issuer or not audience:
            raise InvalidOptionError("a JWT needs an issuer and an audience to be checked against")
        self._keys = keys
        self._issuer = issuer
        self._audience = audience

    @classmethod
    def of_secret(cls, secret: str, *, issuer: str, audience: str) -> Self:
        """Recognise tokens that were signed by HS256 with *secret*, of at least 32 bytes."""
        if len(secret.encode()) < _LEAST_SECRET_BYTES:
            raise InvalidOptionError(
                f"the secret of JWTs must have at least {_LEAST_SECRET_BYTES} bytes"
            )
        return cls({None: (secret, "HS256")}, issuer=issuer, audience=audience)

    @classmethod
    def of_key_file(cls, text: str, *, issuer: str, audience: str) -> Self:
        """Recognise tokens that were signed by the private key to a public one.

        Args:
            text: A public key in PEM, or a JWKS document, whose keys are told apart by ``kid``.
                RSA keys of at least 2048 bits mean RS256, P-256 keys ES256.
            issuer: What ``iss`` must be.
            audience: What ``aud`` must be or hold.

        Raises:
            InvalidOptionError: A key that can't be read, or of another kind.
        """
        keys: _Keys = _jwks(text) if text.lstrip().startswith("{") else {None: _pem(text)}
        return cls(keys, issuer=issuer, audience=audience)

    async def caller(self, token: str) -> Caller | None:
        """See Authenticator.caller."""
        try:
            claims = self._claims(token)
            user_id = named_user_id(claims["sub"])
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            return None
        scope = claims.get("scope", "")
        is_admin = isinstance(scope, str) and ADMIN_SCOPE in scope.split(" ")
        return Caller(user_id=user_id, is_admin=is_admin)

    def _claims(self, token: str) -> dict[str, Any]:
        header = jwt.get_unverified_header(token)
        if "crit" in header:
            raise jwt.InvalidTokenError("an extension that must be understood")
        # A file with one key signs all tokens, whether they name it or not.
        kid = header.get("kid") if None not in self._keys else None
        if kid not in self._keys:
            raise jwt.InvalidTokenError("an unknown key")
        key, algorithm = self._keys[kid]
        return jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            issuer=self._issuer,
            audience=self._audience,
            leeway=_LEEWAY_S,
            options={"require": list(_REQUIRED)},
        )


def _pem(text: str) -> tuple[Any, str]:
    try:
        key = load_pem_public_key(text.encode())
    except ValueError:
        raise InvalidOptionError("the key file of JWTs holds no public key in PEM") from None
    return key, _algorithm(key)


def _jwks(text: str) -> _Keys:
    keys: _Keys = {}
    try:
        for described in json.loads(text)["keys"]:
            if described.get("use", "sig") != "sig":
                continue
            key = jwt.PyJWK.from_dict(described).key
            keys[str(described["kid"])] = (key, _algorithm(key))
    except (jwt.PyJWTError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InvalidOptionError):
            raise
        raise InvalidOptionError(
            f"the JWKS file must hold public keys, each with a kid: {type(error).__name__}"
        ) from None
    if not keys:
        raise InvalidOptionError("the JWKS file holds no key")
    return keys


def _algorithm(key: object) -> str:
    if isinstance(key, RSAPublicKey) and key.key_size >= _LEAST_RSA_BITS:
        return "RS256"
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return "ES256"
    raise InvalidOptionError(
        f"a key of JWTs must be a public RSA key of at least {_LEAST_RSA_BITS} bits or a public "
        "P-256 key"
    )
