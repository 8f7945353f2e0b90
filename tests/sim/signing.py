"""A token for one REST request, as a client of the venue signs it."""

from __future__ import annotations

import secrets
import time
from typing import Any

import jwt


def signed(key: dict[str, Any], uri: str) -> str:
    """The Authorization header for a request whose `uri` is method, host and path."""
    now = int(time.time())
    claims = {"sub": key["name"], "iss": "cdp", "nbf": now, "exp": now + 120, "uri": uri}
    headers = {"kid": key["name"], "nonce": secrets.token_hex(8)}
    return f"Bearer {jwt.encode(claims, key['privateKey'], 'ES256', headers)}"
