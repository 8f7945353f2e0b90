"""Whatever is posted to the simulated venue: it is taken, or refused with a 4xx; no defect answers 500."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from sim.faults import Faults
from tests.properties.damage import oddities, strangers
from tests.sim.serving import PREFIX, order_body, replay_settings, serving

ORDER = order_body("11111111-2222-3333-4444-555555555555", "BUY", "limit_limit_gtc", base_size="0.001", limit_price="9")
BODIES = {
    "/sim/faults": msgspec.json.encode(Faults()),
    "/sim/step": b'{"ticks":1}',
    f"{PREFIX}/orders": json.dumps(ORDER).encode(),
    f"{PREFIX}/orders/preview": json.dumps(ORDER).encode(),
    f"{PREFIX}/orders/edit": b'{"order_id":"1","price":"9","size":"0.001"}',
    f"{PREFIX}/orders/batch_cancel": b'{"order_ids":["1"]}',
}
SHARE = 24  # one odd value in so many is tried at each place


@pytest.mark.parametrize("path", BODIES)
async def test_a_body_with_odd_values_is_taken_or_refused(path: str, tmp_path: Path) -> None:
    async with serving(replay_settings(tmp_path)) as venue:
        seen = set()
        for body in (*oddities(BODIES[path], SHARE), *list(strangers(BODIES[path]))[::2]):
            headers = {"Authorization": f"Bearer {venue.token(f'POST {venue.address}{path}')}"}
            if path == "/sim/step" and body[:9] == b'{"ticks":' and len(body) > 12:
                continue  # as many ticks as it says
            answer = await venue.http.post(path, content=body, headers=headers)
            assert answer.status_code in (200, 400, 404), (body[:80], answer.text)
            seen.add(answer.status_code)
            if path == "/sim/faults":
                await venue.http.post(path, content=BODIES[path])
        assert 400 in seen
