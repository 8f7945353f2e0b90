"""Files that an operator hands over: a recording, a profile, a key. Damaged, each is refused in one line."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.errors import BadConfig
from libs.common.messages import sound
from libs.common.settings import Coinbase
from services.execution.auth import Signer, load_signer
from sim.readers import BadData
from sim.replay import open_replay
from tests.properties.damage import ODD, damaged, oddities, strangers

NOON = datetime(2026, 8, 12, 12, tzinfo=UTC)
SHARE = 2  # one odd cell in so many is tried at each place
fuzz = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

# -- recordings

TRADE = b'{"product_id":"BTC-USD","trade_id":"7","price":"100","size":"0.5","time":"2025-01-01T00:00:00Z","side":"BUY"}'
TICKER = (
    b'{"product_id":"BTC-USD","price":"100","best_bid":"99","best_ask":"101",'
    b'"best_bid_quantity":"1","best_ask_quantity":"2"}'
)
FRAME = b'{"channel":"market_trades","timestamp":"2025-01-01T00:00:00Z","events":[{"trades":[%b],"tickers":[%b]}]}' % (
    TRADE,
    TICKER,
)
QUOTES = b"0.1,0.1,0.1,0.1,1,0.2,0.2,0.2,0.2,1"
CSV = {  # a line of names, where there is one, and two lines of cells
    "candles": (
        b"start,open,high,low,close,volume",
        b"2025-01-01 00:00:00,100,110,90,105,4",
        b"2025-01-01 00:01:00,100,110,90,105,4",
    ),
    "unix candles": (
        b"unix,symbol,open,high,low,close,Volume BTC",
        b"1735689600,BTC/USD,100,110,90,105,4",
        b"1735689660,BTC/USD,100,110,90,105,4",
    ),
    "hourly candles": (
        b"date,symbol,open,high,low,close,volume",
        b"2025-01-01 07-PM,BTCUSD,100,110,90,105,4",
        b"2025-01-01 08-PM,BTCUSD,100,110,90,105,4",
    ),
    "daily candles": (b"", b"20250101 00:00,100,110,90,105,4", b"20250102 00:00,100,110,90,105,4"),
    "quote bars": (b"", b"20250101 00:00," + QUOTES, b"20250102 00:00," + QUOTES),
    "quotes": (b"ts_ms,bid,ask,bid_size,ask_size", b"1735689600000,99,101,1,2", b"1735689601000,99,101,1,2"),
    "trades": (
        b"timestamp,symbol,side,price,size,trade_id",
        b"2025-01-01T00:00:00Z,BTC-USD,BUY,100,0.5,7",
        b"2025-01-01T00:00:01Z,BTC-USD,BUY,100,0.5,8",
    ),
}
# What stands in the place of a cell; a comma or a line end in it makes more cells of it, or more lines.
CELLS = [odd.strip(b'"')[:600] for odd in ODD]
CELLS += [b"", b'"', b"\r", b"\n", b"\x00", b"20250101 00:00", b"99999999 00:00", b"2025-01-01 07-PM", b"9" * 17]
CELLS += ["\u00b2\u00b2".encode(), "\u0661".encode() * 10, b"1E+99", b"1E-99", b"-1", b"253402300800", b"9" * 14]


def recording(form: str) -> bytes:
    return b"\n".join([*CSV[form], b""]).lstrip(b"\n")


def reads(path: Path, data: bytes) -> BadData | None:
    """The refusal, None where it can be replayed: then with prices that are some."""
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    try:
        for tick in open_replay(path, None, None, None):
            assert sound((tick.price, tick.size, tick.bid, tick.ask, tick.at))
            assert tick.price > 0
    except BadData as found:
        refused = found
    else:
        return None
    assert str(refused).splitlines() == [str(refused)]
    assert str(refused).startswith(str(path))
    return refused


@pytest.mark.parametrize("form", CSV)
def test_every_odd_cell_of_a_recording_is_read_or_refused_with_its_line(form: str, tmp_path: Path) -> None:
    path, (header, first, second) = tmp_path / "BTC-USD.csv", CSV[form]
    assert reads(path, recording(form)) is None
    lines = [header] if header else []
    cells = second.split(b",")
    for place in range(len(cells)):
        for cell in CELLS[place % SHARE :: SHARE]:
            odd = b",".join([*cells[:place], cell, *cells[place + 1 :]])
            refused = reads(path, b"\n".join([*lines, first, odd, b""]))
            assert refused is None or refused.line or "UTF-8" in refused.what, refused
            reads(path, b"\n".join([*lines, odd, first, b""]))
    for place, name in enumerate(header.split(b",") if header else []):
        for cell in CELLS[place % SHARE :: SHARE]:
            reads(path, recording(form).replace(name, cell, place + 1))


def test_every_odd_value_of_a_recorded_frame_is_read_or_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "frames.jsonl"
    assert reads(path, FRAME) is None
    for frame in (*oddities(FRAME), *strangers(FRAME)):
        refused = reads(path, FRAME + b"\n" + frame + b"\n")
        assert refused is None or refused.line == 2 or "UTF-8" in refused.what, refused


@fuzz
@given(st.data())
def test_a_recording_with_damaged_bytes_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    whole = {"BTC-USD.csv": recording(data.draw(st.sampled_from(list(CSV)))), "frames.jsonl": FRAME + b"\n" + FRAME}
    name = data.draw(st.sampled_from(list(whole)))
    raw = data.draw(st.composite(lambda draw: damaged(whole[name], draw))())
    reads(tmp_path / name, raw)
    reads(tmp_path / f"{name}.gz", raw)
    packed = data.draw(st.composite(lambda draw: damaged(gzip.compress(whole[name], mtime=0), draw))())
    with contextlib.suppress(BadData):
        path = tmp_path / f"{name}.gz"
        path.write_bytes(packed)
        list(open_replay(path, None, None, None))


# -- keys

KEY = ec.generate_private_key(ec.SECP256R1())
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
FILE = json.dumps({"name": "organizations/o/apiKeys/k", "privateKey": PEM}).encode()
PARTS = [line for line in PEM.splitlines() if "-----" not in line]


def signs(path: Path, data: bytes) -> Signer | None:
    """None where it is refused: in one line without any part of the key. What is taken makes tokens."""
    path.write_bytes(data)
    try:
        signer = load_signer(Coinbase(key_name="organizations/o/apiKeys/k"), path, 120)
    except BadConfig as found:
        refused = found
    else:
        assert signer.token(NOON)
        return signer
    line = str(refused)
    assert line.splitlines() == [line]
    assert not [part for part in PARTS if part[:8] in line or part[-8:] in line]
    assert refused.__suppress_context__, "a traceback would show what it was made of"
    return None


def key_files() -> Iterator[bytes]:
    yield from oddities(FILE)
    yield from strangers(FILE)
    for change in (PEM.lower(), PEM[::-1], PEM.replace("EC ", ""), PEM * 2, PEM[:90], PEM[90:], *PARTS):
        yield change.encode()
        yield json.dumps({"id": "k", "privateKey": change}).encode()


def test_every_odd_value_of_a_key_file_is_read_or_refused_without_showing_the_key(tmp_path: Path) -> None:
    assert signs(tmp_path / "key", FILE)
    assert None in [signs(tmp_path / "key", data) for data in key_files()]


@fuzz
@given(st.data())
def test_a_key_file_with_damaged_bytes_is_read_or_refused_without_showing_the_key(
    tmp_path: Path, data: st.DataObject
) -> None:
    whole = data.draw(st.sampled_from([FILE, PEM.encode()]))
    signs(tmp_path / "key", data.draw(st.composite(lambda draw: damaged(whole, draw))()))
