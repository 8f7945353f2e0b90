from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from libs.common.errors import BadConfig
from libs.common.settings import Coinbase
from services.execution.auth import Signer, load_signer

NAME = "organizations/o/apiKeys/k"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EC = ec.generate_private_key(ec.SECP256R1())
ED = Ed25519PrivateKey.generate()
PLAIN = NoEncryption()
EC_SEC1 = EC.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, PLAIN).decode()
EC_PKCS8 = EC.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, PLAIN).decode()
ED_PKCS8 = ED.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, PLAIN).decode()
ED_32 = base64.b64encode(ED.private_bytes_raw()).decode()
ED_64 = base64.b64encode(ED.private_bytes_raw() + ED.public_key().public_bytes_raw()).decode()
FORMS = {
    "SEC1 PEM": (EC_SEC1, "ES256"),
    "PKCS8 PEM": (EC_PKCS8, "ES256"),
    "PEM with literal line ends": (EC_SEC1.replace("\n", "\\n"), "ES256"),
    "PEM with Windows line ends": (EC_SEC1.replace("\n", "\r\n"), "ES256"),
    "PEM in one line": (EC_SEC1.replace("\n", " "), "ES256"),
    "PEM behind its parameters": (
        f"-----BEGIN EC PARAMETERS-----\nBggq\n-----END EC PARAMETERS-----\n{EC_SEC1}",
        "ES256",
    ),
    "Ed25519 PEM": (ED_PKCS8, "EdDSA"),
    "Ed25519 seed": (ED_32, "EdDSA"),
    "Ed25519 seed and public key": (ED_64, "EdDSA"),
}
SETTINGS = Coinbase(key_name=NAME)
Source = Callable[[str, Path], Signer]


def check_token(signer: Signer, algorithm: str, uri: str) -> None:
    """Every field of the header and every claim, and no other."""
    token, expires_at = signer.token(NOW, uri)
    public = EC.public_key() if algorithm == "ES256" else ED.public_key()
    claims = jwt.decode(token, public, [algorithm], options={"verify_exp": False, "verify_nbf": False})
    told = {"sub": NAME, "iss": "cdp", "nbf": int(NOW.timestamp()), "exp": int(NOW.timestamp()) + 120}
    assert claims == ({**told, "uri": uri} if uri else told)
    header = jwt.get_unverified_header(token)
    nonce = header.pop("nonce")
    assert header == {"alg": algorithm, "kid": NAME, "typ": "JWT"}
    assert len(bytes.fromhex(nonce)) == 16
    assert expires_at.timestamp() == claims["exp"]


def from_environment(key: str, folder: Path) -> Signer:
    return load_signer(Coinbase(private_key=key, key_name=NAME), folder / "absent", 120)


def from_key_file(key: str, folder: Path) -> Signer:
    path = folder / "key.json"
    path.write_text(json.dumps({"name": NAME, "privateKey": key}))
    return load_signer(Coinbase(key_file=str(path)), folder / "absent", 120)


def from_key_file_with_an_id(key: str, folder: Path) -> Signer:
    path = folder / "key.json"
    path.write_text(json.dumps({"id": NAME, "privateKey": key}))
    return load_signer(Coinbase(), path, 120)


def from_a_bare_file(key: str, folder: Path) -> Signer:
    path = folder / "key.pem"
    path.write_text(key + "\n")
    return load_signer(Coinbase(key_file=str(path), key_name=NAME), folder / "absent", 120)


@pytest.mark.parametrize(("key", "algorithm"), FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("source", [from_environment, from_key_file, from_key_file_with_an_id, from_a_bare_file])
def test_every_form_of_key_from_every_source_signs_a_token_field_by_field(
    tmp_path: Path, key: str, algorithm: str, source: Source
) -> None:
    signer = source(key, tmp_path)
    check_token(signer, algorithm, "GET api.coinbase.com/api/v3/brokerage/accounts")
    check_token(signer, algorithm, "")  # a WebSocket's names no uri


def test_every_token_has_a_nonce_of_its_own(tmp_path: Path) -> None:
    signer = from_environment(EC_SEC1, tmp_path)
    nonces = {jwt.get_unverified_header(signer.token(NOW)[0])["nonce"] for _ in range(100)}
    assert len(nonces) == 100


def test_a_whole_key_file_may_stand_in_the_environment_also_with_real_line_ends(tmp_path: Path) -> None:
    text = json.dumps({"name": NAME, "privateKey": EC_SEC1}).replace("\\n", "\n")
    check_token(load_signer(Coinbase(private_key=text, key_name="other"), tmp_path / "absent", 120), "ES256", "")


def test_the_environment_goes_before_a_key_file(tmp_path: Path) -> None:
    settings = Coinbase(private_key=ED_64, key_name=NAME, key_file=str(tmp_path / "absent"))
    check_token(load_signer(settings, tmp_path / "absent", 120), "EdDSA", "")


RSA = rsa.generate_private_key(65537, 2048)
LOCKED = BestAvailableEncryption(b"pass")
UNUSABLE = {
    "RSA": RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, PLAIN).decode(),
    "another curve": ec.generate_private_key(ec.SECP384R1())
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, PLAIN)
    .decode(),
    "a public key": "-----BEGIN PUBLIC KEY-----\nQUJD\n-----END PUBLIC KEY-----",
    "under a password": EC.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, LOCKED).decode(),
    "cut off": EC_SEC1[:90],
    "not base64": "SECRET!",
    "too short": base64.b64encode(bytes(16)).decode(),
    "two halves that do not match": base64.b64encode(ED.private_bytes_raw() + bytes(32)).decode(),
    "empty": "",
}


@pytest.mark.parametrize("key", UNUSABLE.values(), ids=UNUSABLE.keys())
@pytest.mark.parametrize("source", [from_key_file, from_a_bare_file])
def test_an_unusable_key_is_refused_in_one_line_without_any_part_of_it(
    tmp_path: Path, key: str, source: Source
) -> None:
    with pytest.raises(BadConfig, match="holds no usable private key: it needs P-256") as caught:
        source(key, tmp_path)
    line = str(caught.value)
    assert "\n" not in line
    for part in (key[start : start + 8] for start in range(27, len(key) - 8, 8)):
        assert part not in line
    assert "SECRET" not in line


@pytest.mark.parametrize(
    "content", ["{", "{}", '{"name": "n"}', '{"name":"n","privateKey":["SECRET"]}', '{"a":' * 9999]
)
def test_a_file_that_is_no_key_file_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key.json"
    path.write_text(content)
    with pytest.raises(BadConfig, match="not a CDP key file") as caught:
        load_signer(SETTINGS, path, 120)
    assert "SECRET" not in str(caught.value)


def test_a_key_without_a_name_is_refused_with_the_setting_that_mends_it(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text(EC_SEC1)
    with pytest.raises(BadConfig, match="PERPS_COINBASE_KEY_NAME"):
        load_signer(Coinbase(key_file=str(path)), path, 120)


def test_a_missing_or_binary_key_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"nothing\.json cannot be read: No such file"):
        load_signer(SETTINGS, tmp_path / "nothing.json", 120)
    with pytest.raises(BadConfig, match="cannot be read"):
        load_signer(SETTINGS, tmp_path, 120)
    (tmp_path / "key.der").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadConfig, match="is no text"):
        load_signer(SETTINGS, tmp_path / "key.der", 120)


def test_nothing_that_holds_a_key_shows_it_when_printed(tmp_path: Path) -> None:
    signer = from_environment(ED_64, tmp_path)
    assert ED_64[:8] not in f"{signer!r} {signer}"
