from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from libs.common.errors import BadConfig
from services.execution.auth import load_signer

NAME = "organizations/o/apiKeys/k"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EC = generate_private_key(SECP256R1())
ED = Ed25519PrivateKey.generate()
EC_PEM = EC.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
ED_PEM = ED.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
ED_SEED = ED.private_bytes_raw()


def key_file(folder: Path, key: str, name_field: str = "name") -> Path:
    path = folder / "key.json"
    path.write_text(json.dumps({name_field: NAME, "privateKey": key}))
    return path


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (EC_PEM, "ES256"),
        (EC_PEM.replace("\n", "\\n"), "ES256"),
        (ED_PEM, "EdDSA"),
        (base64.b64encode(ED_SEED).decode(), "EdDSA"),
        (base64.b64encode(ED_SEED + ED.public_key().public_bytes_raw()).decode(), "EdDSA"),
    ],
)
@pytest.mark.parametrize("name_field", ["name", "id"])
def test_every_form_of_key_signs_a_token_field_by_field(
    tmp_path: Path, key: str, algorithm: str, name_field: str
) -> None:
    signer = load_signer(key_file(tmp_path, key, name_field), 120)
    token, expires_at = signer.token(NOW, "GET api.coinbase.com/api/v3/brokerage/accounts")
    public = EC.public_key() if algorithm == "ES256" else ED.public_key()
    claims = jwt.decode(token, public, [algorithm], options={"verify_exp": False, "verify_nbf": False})
    assert claims == {
        "sub": NAME,
        "iss": "cdp",
        "nbf": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 120,
        "uri": "GET api.coinbase.com/api/v3/brokerage/accounts",
    }
    header = jwt.get_unverified_header(token)
    assert {name: header[name] for name in ("alg", "kid", "typ")} == {"alg": algorithm, "kid": NAME, "typ": "JWT"}
    assert len(header["nonce"]) == 32
    assert expires_at.timestamp() == claims["exp"]


def test_every_token_is_fresh_and_the_websocket_one_names_no_uri(tmp_path: Path) -> None:
    signer = load_signer(key_file(tmp_path, EC_PEM), 120)
    first, second = signer.token(NOW)[0], signer.token(NOW)[0]
    assert jwt.get_unverified_header(first)["nonce"] != jwt.get_unverified_header(second)["nonce"]
    assert "uri" not in jwt.decode(first, options={"verify_signature": False})


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"name": "n"}', '{"name":"n","privateKey":"SECRET!"}'])
def test_a_file_that_is_no_key_file_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key.json"
    path.write_text(content)
    with pytest.raises(BadConfig, match="not a CDP key file") as caught:
        load_signer(path, 120)
    assert "SECRET" not in str(caught.value)


def test_a_missing_key_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="cannot be read"):
        load_signer(tmp_path / "nothing.json", 120)
