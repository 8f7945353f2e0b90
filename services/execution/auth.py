"""CDP keys and the short-lived tokens made from them. A key never leaves this module, and prints as nothing."""

from __future__ import annotations

import base64
import json
import re
import secrets
from datetime import datetime, timedelta
from pathlib import Path

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from libs.common.errors import BadConfig
from libs.common.settings import Coinbase

FORMS = "P-256 as PEM, or Ed25519 as PEM or base64 of 32 or 64 bytes"
PEM = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----(.*?)-----END \1-----", re.DOTALL)
SPACE = re.compile(r"\\[nrt]|\s")


class Signer:
    """Makes one token per request. The algorithm follows from the key itself: P-256 signs ES256, Ed25519 EdDSA."""

    def __init__(self, name: str, key: EllipticCurvePrivateKey | Ed25519PrivateKey, lifetime_seconds: int) -> None:
        self._name = name
        self._key = key
        self._algorithm = "ES256" if isinstance(key, EllipticCurvePrivateKey) else "EdDSA"
        self._lifetime = timedelta(seconds=lifetime_seconds)

    def token(self, now: datetime, uri: str = "") -> tuple[str, datetime]:
        """A fresh JWT and the time of its expiry, both by the clock of `now`, which should be the venue's. `uri` is
        "METHOD host/path" without the query; the WebSocket takes none (venue document 4)."""
        expires_at = now + self._lifetime
        claims = {"sub": self._name, "iss": "cdp", "nbf": int(now.timestamp()), "exp": int(expires_at.timestamp())}
        if uri:
            claims["uri"] = uri
        headers = {"kid": self._name, "nonce": secrets.token_hex(16)}
        return jwt.encode(claims, self._key, algorithm=self._algorithm, headers=headers), expires_at


def load_signer(coinbase: Coinbase, default_file: Path, lifetime_seconds: int) -> Signer:
    """The key of the settings: the private key of the environment, else the key file, else `default_file`.

    Either may hold a CDP key file's JSON, or the private key alone, whose name `key_name` tells then: P-256 as SEC1 or
    PKCS8 PEM (with literal \\n or squeezed into one line too), or Ed25519 as PKCS8 PEM or base64 of its seed with or
    without the public key. Raises BadConfig with one line that never shows any part of the key.
    """
    if coinbase.private_key:
        source, text = "PERPS_COINBASE_PRIVATE_KEY", coinbase.private_key
    else:
        path = Path(coinbase.key_file) if coinbase.key_file else default_file
        source = f"the CDP key file {path}"
        try:
            text = path.read_text("utf-8-sig")
        except OSError as error:
            raise BadConfig(f"{source} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise BadConfig(f"{source} is no text: it needs {FORMS}") from None
    name, private = _unpacked(text.strip(), coinbase.key_name, source)
    if not name:
        raise BadConfig(f"{source} names no key: set PERPS_COINBASE_KEY_NAME to organizations/{{org}}/apiKeys/{{key}}")
    try:
        key = _private_key(private)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: PEM under a password
        raise BadConfig(f"{source} holds no usable private key: it needs {FORMS}, without a password") from None
    return Signer(name, key, lifetime_seconds)


def _unpacked(text: str, key_name: str, source: str) -> tuple[str, str]:
    """Key name and private key, out of JSON where it is JSON."""
    if not text.startswith("{"):
        return key_name, text
    try:
        # A variable often holds the PEM's line ends as real ones, which strict JSON does not allow.
        content = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("privateKey"), str):
        raise BadConfig(f"{source} is not a CDP key file: it needs JSON with name (or id) and privateKey") from None
    name = content.get("name") or content.get("id") or key_name
    return str(name), content["privateKey"]


def _private_key(text: str) -> EllipticCurvePrivateKey | Ed25519PrivateKey:
    """Raises ValueError, TypeError or UnsupportedAlgorithm."""
    if "-----BEGIN" not in text:
        return _ed25519(base64.b64decode(SPACE.sub("", text).strip("\"'"), validate=True))
    found = PEM.search(text)
    if found is None:
        raise ValueError("no PEM block of a private key")
    kind, body = found.group(1), SPACE.sub("", found.group(2))
    key = load_pem_private_key(f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n".encode(), password=None)
    if isinstance(key, Ed25519PrivateKey):
        return key
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        return key
    raise ValueError("neither P-256 nor Ed25519")


def _ed25519(raw: bytes) -> Ed25519PrivateKey:
    key = Ed25519PrivateKey.from_private_bytes(raw[:32])
    if raw[32:] not in (b"", key.public_key().public_bytes_raw()):
        raise ValueError("the public half does not belong to the private one")
    return key
