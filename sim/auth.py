"""CDP keys and the JWTs signed with them: ES256 and Ed25519, checked as the venue checks them."""

from __future__ import annotations

import base64
import os
import uuid
from datetime import datetime
from pathlib import Path

import jwt
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.types import Options
from msgspec import Struct

ISSUERS = ("cdp", "coinbase-cloud")


class KeyFile(Struct, rename={"private_key": "privateKey"}):
    """A key file as the CDP portal hands it out."""

    name: str
    private_key: str


class BadKeyFile(Exception):
    """The key file in the data directory cannot be used; one line."""


class _Claims(Struct):
    sub: str = ""
    iss: str = ""
    nbf: float = 0
    exp: float = 0
    uri: str = ""
    uris: list[str] = []


class Verifier:
    """Knows the one key of the simulated account."""

    def __init__(self, key: KeyFile) -> None:
        private = _private_key(key.private_key)
        self._name = key.name
        self._public = private.public_key()
        self._algorithm = "ES256" if isinstance(private, ec.EllipticCurvePrivateKey) else "EdDSA"

    def accepts(self, token: str, now: datetime, uri: str = "") -> bool:
        """Whether a token is ours and valid at `now` (wall time). `uri` is what a REST token must name: method, host
        and path without query; a WebSocket token names none."""
        try:
            if jwt.get_unverified_header(token).get("kid") != self._name:
                return False
            # Times are checked below: PyJWT would look at a clock of its own.
            unchecked: Options = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False}
            payload = jwt.decode(token, self._public, algorithms=[self._algorithm], options=unchecked)
            claims = msgspec.convert(payload, _Claims)
        except (jwt.PyJWTError, msgspec.ValidationError):
            return False
        at = now.timestamp()
        own = claims.sub == self._name and claims.iss in ISSUERS
        return own and claims.nbf <= at < claims.exp and (not uri or uri in (claims.uri, *claims.uris))


def key_at(path: Path) -> KeyFile:
    """The key file at a path; made at the first start, for its owner only. Raises BadKeyFile."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=KeyFile)
    except FileNotFoundError:
        return _new_key(path)
    except msgspec.MsgspecError as error:
        raise BadKeyFile(f"{path}: {error}") from None


def verifier_at(path: Path) -> Verifier:
    """The verifier of the key file at a path. Raises BadKeyFile."""
    key = key_at(path)
    try:
        return Verifier(key)
    except ValueError:
        raise BadKeyFile(f"{path}: the private key is neither P-256 nor Ed25519") from None


def _new_key(path: Path) -> KeyFile:
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,  # SEC1, as the portal writes it
        serialization.NoEncryption(),
    )
    key = KeyFile(f"organizations/{uuid.uuid4()}/apiKeys/{uuid.uuid4()}", pem.decode())
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")  # a crash half-way must not leave a broken key file
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(key))
    partial.rename(path)
    return key


def _private_key(text: str) -> ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey:
    """P-256 or Ed25519 as PEM, or Ed25519 as base64 of the seed, with or without the public key behind it."""
    if "BEGIN" not in text:
        return ed25519.Ed25519PrivateKey.from_private_bytes(base64.b64decode(text, validate=True)[:32])
    key = serialization.load_pem_private_key(text.replace("\\n", "\n").encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise ValueError("neither P-256 nor Ed25519")
    return key
