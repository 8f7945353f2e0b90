"""A closing as the operator follows it: to its end, over bad news, and never past what risk has said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from cli import control, flatten
from cli.errors import OutcomePending, Refused
from cli.flatten import Flattening
from libs.common import messages as m
from libs.common.errors import BusDown
from tests.cli.builders import PRODUCT
from tests.cli.control_fakes import DeskBus, closing, state, told

T = m.Trading
AGAIN = "perps-bot flatten --reason drill"


class Desk:
    """One flatten. `news` is what risk tells after its answer, one after the other."""

    def __init__(self, *news: m.RiskFigures | Callable[[], None], before: m.RiskFigures | None = None) -> None:
        self.bus = DeskBus(m.Reply(ok=True, detail="reducing; all positions are being closed"))
        self.bus.values = [before] if before else []
        self.bus.then = self._answered
        self._news = news
        self.said: list[str] = []
        self.flattening = Flattening(self.bus, m.Command(reason="drill", who="ann"), AGAIN, self.said.append)

    def _answered(self) -> None:
        self.bus.store(state(T.REDUCING, "f1"))
        asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        for item in self._news:
            for _ in range(20):  # others get their turn, as between two seconds
                await asyncio.sleep(0)
            if isinstance(item, m.RiskFigures):
                self.bus.say(item)
            else:
                item()

    async def closes(self, seconds: float = 5) -> list[dict[str, object]]:
        await self.flattening.run(seconds)
        return self.rows

    @property
    def rows(self) -> list[dict[str, object]]:
        shown = self.flattening.show()["positions"]
        assert isinstance(shown, list)
        return [{key: str(value) for key, value in row.items()} for row in shown]


async def test_a_closing_is_followed_to_its_end_and_told_per_position() -> None:
    desk = Desk(
        told({PRODUCT: closing("0.5"), "ETH-USD": closing("2")}, {PRODUCT: "0.5", "ETH-USD": "2"}),
        told({PRODUCT: closing("0.2", "0.3", "waiting"), "ETH-USD": closing("0", "2", "flat")}, {PRODUCT: "0.2"}),
        told({PRODUCT: closing("0", "0.5", "flat", 2), "ETH-USD": closing("0", "2", "flat")}, {PRODUCT: "0"}),
        before=told(None, {PRODUCT: "0.5", "ETH-USD": "2"}, T.ACTIVE),
    )
    bitcoin, ether = await desk.closes()
    assert (bitcoin["held_before"], bitcoin["sold"], bitcoin["held_now"]) == ("0.5", "0.5", "0")
    assert (bitcoin["outcome"], bitcoin["attempts"]) == ("flat", "2")
    assert (ether["product"], ether["held_before"], ether["outcome"]) == ("ETH-USD", "2", "flat")
    assert desk.flattening.show()["flatten"] == "f1"
    assert "BTC-USD waiting, attempt 1: sold 0.3, held 0.2" in desk.said
    assert sum(line.startswith("ETH-USD flat") for line in desk.said) == 1  # news only


async def test_what_an_exit_that_was_open_has_sold_was_held_before_too() -> None:
    desk = Desk(told({PRODUCT: closing("0", "0.3", "flat")}, {}), before=told(None, {PRODUCT: "0.5"}, T.ACTIVE))
    assert [(row["held_before"], row["sold"]) for row in await desk.closes()] == [("0.5", "0.3")]


async def test_dust_is_an_end() -> None:
    dust = told({PRODUCT: closing("0.000001", "0.5", "dust")}, {PRODUCT: "0.000001"})
    held = {product: replace(position, dust=True) for product, position in dust.positions.items()}
    dust = replace(dust, positions=held)
    assert [row["outcome"] for row in await Desk(dust).closes()] == ["dust"]


async def test_nothing_held_is_done_at_once() -> None:
    assert await Desk(told({}, {})).closes() == []


async def test_what_is_held_and_left_out_of_the_closing_is_not_closed() -> None:
    desk = Desk(told({}, {PRODUCT: "0.5"}))
    with pytest.raises(OutcomePending, match=r"0\.5 BTC-USD is left"):
        await desk.closes(0.05)


async def test_the_end_of_the_wait_tells_what_is_left_and_the_command_that_looks_again() -> None:
    waiting = closing("0.2", "0.3", "waiting", 3, "venue_unreachable")
    desk = Desk(told({PRODUCT: waiting, "ETH-USD": closing("0", "2", "flat")}, {PRODUCT: "0.2"}))
    with pytest.raises(OutcomePending, match=f"0.2 BTC-USD is left, and risk goes on .*`{AGAIN}`"):
        await desk.closes(0.05)
    assert (desk.rows[0]["held_now"], desk.rows[0]["detail"]) == ("0.2", "venue_unreachable")
    assert desk.rows[0]["held_before"] == "0.5"  # nobody told before: what is held and what is sold


async def test_figures_from_before_the_answer_do_not_count() -> None:
    old = told({PRODUCT: closing("0", "9", "flat")}, {})
    desk = Desk()

    def answer() -> None:
        desk.bus.say(old)
        desk.bus.store(state(T.REDUCING, "f1"))

    desk.bus.then = answer
    with pytest.raises(OutcomePending, match="risk has told nothing of the closing"):
        await desk.closes(0.05)
    assert desk.flattening.show()["positions"] is None


async def test_an_older_closing_that_is_followed_again_counts_from_its_own_beginning() -> None:
    half = told({PRODUCT: closing("0.2", "0.3")}, {PRODUCT: "0.2"})
    done = told({PRODUCT: closing("0", "0.5", "flat")}, {})
    assert [row["held_before"] for row in await Desk(half, done, before=half).closes()] == ["0.5"]


async def test_a_closing_that_somebody_calls_off_is_no_success() -> None:
    desk = Desk(told({PRODUCT: closing("0.2", "0.3", "waiting")}, {PRODUCT: "0.2"}))
    desk._news += (lambda: desk.bus.store(state(T.ACTIVE, who="bob")), told(None, {PRODUCT: "0.2"}, T.ACTIVE))
    with pytest.raises(Refused, match=r"called off, trading is active \(drill, bob\): 0.2 BTC-USD is left"):
        await desk.closes()
    assert desk.flattening.show()["trading"] is T.ACTIVE


async def test_figures_without_the_closing_that_is_in_force_are_waited_over() -> None:
    desk = Desk(
        told(None, {PRODUCT: "0.5"}, T.ACTIVE),  # of the second before the answer
        told({PRODUCT: closing("0.5")}, {PRODUCT: "0.5"}),
        told(None, {}, T.HALTED),  # risk has just been restarted
        told({PRODUCT: closing("0", "0.5", "flat")}, {}),
    )
    assert [row["outcome"] for row in await desk.closes()] == ["flat"]


async def test_a_halt_by_a_guard_meanwhile_is_told() -> None:
    desk = Desk(told({PRODUCT: closing("0", "0.5", "flat")}, {}, T.HALTED))
    await desk.closes()
    assert desk.flattening.show()["trading"] is T.HALTED


async def test_a_silent_risk_is_told_while_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flatten, "SILENCE_SECONDS", 0.01)
    desk = Desk()
    with pytest.raises(OutcomePending):
        await desk.closes(0.1)
    assert any("`make restart SERVICE=risk`" in line for line in desk.said)


async def test_an_interrupt_leaves_the_command_that_looks_again() -> None:
    desk = Desk(told({PRODUCT: closing("0.5")}, {PRODUCT: "0.5"}))
    work = asyncio.ensure_future(desk.closes())
    while desk.flattening.closing is None:
        await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(OutcomePending, match=f"interrupted, 0.5 BTC-USD is left.*`{AGAIN}`"):
        await work


async def test_a_refusal_and_a_silent_risk_end_it_before_anything_is_followed() -> None:
    desk = Desk()
    desk.bus.reply = m.Reply(ok=False, detail="the trading state is not known yet")
    with pytest.raises(Refused, match="flatten refused by risk: the trading state is not known yet"):
        await desk.closes()
    assert desk.flattening.state is None


async def test_a_risk_that_is_down_is_no_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(control.ask, "__defaults__", (0.0,))
    desk = Desk()
    desk.bus.lost["flatten"] = 10**9
    with pytest.raises(BusDown, match="risk does not answer flatten"):
        await desk.closes()
