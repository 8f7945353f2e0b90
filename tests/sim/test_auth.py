"""Who may come in: tokens as the venue checks them, and the key file that it hands out."""

from __future__ import annotations

import base64
import json
import stat
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from sim.auth import BadKeyFile, verifier_at
from sim.server import KEY_FILE
from tests.sim.serving import PREFIX, Client, replay_settings, serving

PATH = "/key_permissions"


async def status(client: Client, token: str, scheme: str = "Bearer ") -> int:
    response = await client.http.get(PREFIX + PATH, headers={"Authorization": scheme + token})
    if response.status_code == 401:
        assert (response.text, response.headers["content-type"]) == ("Unauthorized\n", "text/plain; charset=utf-8")
    return response.status_code


def uri(client: Client, method: str = "GET", host: str = "", path: str = PATH) -> str:
    return f"{method} {host or client.address}{PREFIX}{path}"


async def test_a_fresh_token_for_this_request_is_accepted(venue: Client) -> None:
    assert await status(venue, venue.token(uri(venue))) == 200
    assert await status(venue, venue.token(None, uris=[uri(venue)], iss="coinbase-cloud", aud=["x"], iat=1)) == 200


async def test_the_query_is_no_part_of_what_a_token_names(venue: Client) -> None:
    headers = {"Authorization": f"Bearer {venue.token(uri(venue, path='/accounts'))}"}
    response = await venue.http.get(f"{PREFIX}/accounts", params={"limit": 1}, headers=headers)
    assert response.status_code == 200


async def test_the_host_that_a_token_names_is_the_one_of_the_request(venue: Client) -> None:
    headers = {"Authorization": f"Bearer {venue.token(uri(venue, host='api.coinbase.com'))}"}
    wrong = await venue.http.get(PREFIX + PATH, headers=headers)
    right = await venue.http.get(PREFIX + PATH, headers={**headers, "Host": "api.coinbase.com"})
    assert (wrong.status_code, right.status_code) == (401, 200)


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "someone else"},
        {"iss": "someone else"},
        {"nbf": int(time.time()) + 86_400},
        {"exp": int(time.time()) - 1},
        {"exp": "soon"},
        {"uri": "GET nowhere"},
    ],
)
async def test_a_token_that_is_wrong_in_one_claim_is_refused(venue: Client, claims: dict[str, Any]) -> None:
    assert await status(venue, venue.token(**{"uri": uri(venue), **claims})) == 401


async def test_tokens_for_another_method_of_another_key_or_none_at_all_are_refused(venue: Client) -> None:
    assert await status(venue, venue.token(uri(venue, "POST"))) == 401
    assert await status(venue, venue.token()) == 401  # a WebSocket token, which names no request
    assert await status(venue, "nonsense") == 401
    assert (await venue.http.get(PREFIX + PATH)).status_code == 401
    assert await status(venue, venue.token(uri(venue)), scheme="Basic ") == 401
    now = int(time.time())
    claims = {"sub": venue.key["name"], "iss": "cdp", "nbf": now, "exp": now + 120, "uri": uri(venue)}
    other = ec.generate_private_key(ec.SECP256R1())
    assert await status(venue, jwt.encode(claims, other, "ES256", {"kid": venue.key["name"]})) == 401
    assert await status(venue, jwt.encode(claims, "x" * 32, "HS256", {"kid": venue.key["name"]})) == 401
    assert await status(venue, jwt.encode(claims, venue.key["privateKey"], "ES256", {"kid": "other"})) == 401


async def test_the_key_file_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    settings = replay_settings(tmp_path)
    async with serving(settings) as client:
        first = client.key
    path = settings.folder / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first["name"].startswith("organizations/")
    assert first["privateKey"].startswith("-----BEGIN EC PRIVATE KEY-----\n")
    async with serving(settings) as client:
        assert client.key == first


def ed25519_texts(private: ed25519.Ed25519PrivateKey) -> list[str]:
    seed, public = private.private_bytes_raw(), private.public_key().public_bytes_raw()
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return [base64.b64encode(seed + public).decode(), base64.b64encode(seed).decode(), pem.decode()]


@pytest.mark.parametrize("form", range(3))
async def test_an_ed25519_key_can_be_put_in_place(tmp_path: Path, form: int) -> None:
    settings = replay_settings(tmp_path)
    private = ed25519.Ed25519PrivateKey.generate()
    settings.folder.mkdir(parents=True)
    key = {"name": "a-bare-id", "privateKey": ed25519_texts(private)[form]}
    (settings.folder / KEY_FILE).write_text(json.dumps(key))
    async with serving(settings) as client:
        now = int(time.time())
        claims = {"sub": "a-bare-id", "iss": "cdp", "nbf": now, "exp": now + 120, "uri": uri(client)}
        assert await status(client, jwt.encode(claims, private, "EdDSA", {"kid": "a-bare-id"})) == 200


@pytest.mark.parametrize("text", ["{", '{"name":"x"}', '{"name":"x","privateKey":"y"}'])
def test_a_key_file_that_cannot_be_used_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / KEY_FILE
    path.write_text(text)
    with pytest.raises(BadKeyFile, match=KEY_FILE):
        verifier_at(path)
