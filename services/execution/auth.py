"""CDP keys and the short-lived tokens made from them. A key never leaves this module, and prints as nothing."""

from __future__ import annotations

import base64
import json
import secrets
from datetime import datetime, timedelta
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from libs.common.errors import BadConfig


class Signer:
    """Makes one token per request. The algorithm follows from the key itself: P-256 signs ES256, Ed25519 EdDSA."""

    def __init__(self, name: str, key: EllipticCurvePrivateKey | Ed25519PrivateKey, lifetime_seconds: int) -> None:
        self._name = name
        self._key = key
        self._algorithm = "ES256" if isinstance(key, EllipticCurvePrivateKey) else "EdDSA"
        self._lifetime = timedelta(seconds=lifetime_seconds)

    def token(self, now: datetime, uri: str = "") -> tuple[str, datetime]:
        """A fresh JWT and the wall time of its expiry. `uri` is "METHOD host/path" without the query; the WebSocket
        takes none."""
        expires_at = now + self._lifetime
        claims = {"sub": self._name, "iss": "cdp", "nbf": int(now.timestamp()), "exp": int(expires_at.timestamp())}
        if uri:
            claims["uri"] = uri
        headers = {"kid": self._name, "nonce": secrets.token_hex(16)}
        return jwt.encode(claims, self._key, algorithm=self._algorithm, headers=headers), expires_at


def load_signer(path: Path, lifetime_seconds: int) -> Signer:
    """Read a CDP key file: `{"name" or "id": ..., "privateKey": PEM (also with literal \\n) or base64 Ed25519}`.

    Raises BadConfig with one line that never shows the key.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        name = content.get("name") or content["id"]
        key = _private_key(content["privateKey"].replace("\\n", "\n"))
    except OSError as error:
        raise BadConfig(f"the CDP key file {path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadConfig(f"{path} is not a CDP key file: it needs name and privateKey (PEM or base64 Ed25519)") from None
    return Signer(str(name), key, lifetime_seconds)


def _private_key(text: str) -> EllipticCurvePrivateKey | Ed25519PrivateKey:
    if "-----BEGIN" not in text:
        return Ed25519PrivateKey.from_private_bytes(base64.b64decode(text, validate=True)[:32])
    key = load_pem_private_key(text.encode(), password=None)
    if not isinstance(key, EllipticCurvePrivateKey | Ed25519PrivateKey):
        raise ValueError("neither P-256 nor Ed25519")
    return key
