"""A verdict is found by any of its ids, with every rule, in a ledger that holds much else."""

from __future__ import annotations

import io

import pytest
from msgspec.structs import replace
from rich.console import Console

from cli import explain as module
from cli.errors import Refused
from cli.explain import explain, history
from cli.output import Json, jsonable
from cli.verdict_page import draw_verdict
from libs.common import messages as m
from libs.common.errors import BadConfig
from tests.cli.builders import event, fill, verdict
from tests.cli.control_fakes import DeskBus, state

OUTCOME = m.CheckOutcome
SIGNALS = [m.derive_id("signal", number) for number in range(8)]
CHECKS = (
    m.Check(rule="expired", reason=m.Reason.SIGNAL_EXPIRED, outcome=OUTCOME.PASSED, detail="age=1"),
    m.Check(rule="halted", reason=m.Reason.TRADING_HALTED, outcome=OUTCOME.EXEMPT),
    m.Check(rule="mark_stale", reason=m.Reason.MARK_STALE, outcome=OUTCOME.VIOLATED, detail="age=31 limit=5"),
    m.Check(rule="losing", reason=m.Reason.DAILY_LOSS_LIMIT, outcome=OUTCOME.VIOLATED, detail="daily_loss=51 limit=50"),
)


def decided(number: int, approved: bool = True, **changes: object) -> m.Verdict:
    signal_id = SIGNALS[number]
    made = replace(verdict(signal_id, approved), checks=CHECKS[:2] if approved else CHECKS, detail="age=31 limit=5")
    if made.order is not None:
        made = replace(made, order=replace(made.order, client_order_id=m.client_order_id(signal_id)))
    return replace(made, **changes)


def step(number: int, revision: int = 1, venue_order_id: str = "", **changes: object) -> m.OrderEvent:
    made = event(SIGNALS[number], m.OrderStatus.FILLED)
    made = replace(made, revision=revision, client_order_id=m.client_order_id(SIGNALS[number]))
    return replace(made, venue_order_id=venue_order_id, **changes)


@pytest.fixture
def bus() -> DeskBus:
    found = DeskBus()
    found.ledger = [
        decided(0),
        fill(),
        step(0, 1),
        step(0, 2, "venue-0000"),
        decided(1, approved=False),
        b"garbage",
        decided(2),
        step(2, 1, "venue-0002", edit_id=SIGNALS[3]),
        decided(3, order=decided(2).order, edits=True),
    ]
    return found


def quiet(line: str, done: int, total: int) -> None:
    raise AssertionError("a short ledger is read before anybody wonders")


async def found(bus: DeskBus, text: str) -> Json:
    shown: Json = jsonable(await explain(bus, text, quiet))
    return shown


@pytest.mark.parametrize("text", [SIGNALS[1], m.client_order_id(SIGNALS[1])])
async def test_a_denied_order_is_found_by_the_only_ids_that_it_has(bus: DeskBus, text: str) -> None:
    shown = await found(bus, text)
    assert (shown["signal_id"], shown["client_order_id"]) == (SIGNALS[1], m.client_order_id(SIGNALS[1]))
    assert (shown["verdict"], shown["reason"], shown["deciding_rule"]) == ("denied", "mark_stale", "mark_stale")
    assert [check["outcome"] for check in shown["checks"]] == ["passed", "exempt", "violated", "violated"]
    assert shown["checks"][2]["detail"] == "age=31 limit=5"
    assert (shown["status"], shown["steps"], shown["order"]) == (None, [], None)


@pytest.mark.parametrize("text", [SIGNALS[0], m.client_order_id(SIGNALS[0]), "venue-0000"])
async def test_an_approved_order_is_found_by_each_of_its_ids_with_what_became_of_it(bus: DeskBus, text: str) -> None:
    shown = await found(bus, text)
    assert (shown["signal_id"], shown["verdict"], shown["deciding_rule"]) == (SIGNALS[0], "approved", None)
    assert (shown["status"], shown["venue_order_id"], len(shown["steps"])) == ("FILLED", "venue-0000", 2)
    assert shown["trading_revision"] == 1


async def test_an_unknown_rule_decides_as_a_violated_one_does(bus: DeskBus) -> None:
    unknown = replace(CHECKS[2], outcome=OUTCOME.UNKNOWN, rule="mark_unknown")
    bus.ledger.append(decided(4, approved=False, checks=(*CHECKS[:2], unknown, CHECKS[3])))
    assert (await found(bus, SIGNALS[4]))["deciding_rule"] == "mark_unknown"


@pytest.mark.parametrize("whole", [SIGNALS[1], m.client_order_id(SIGNALS[0]), "venue-0002"])
async def test_six_characters_are_enough_where_only_one_order_begins_so(bus: DeskBus, whole: str) -> None:
    text = whole[:6] if not whole.startswith("venue") else whole[:-1]
    if whole == "venue-0002":
        with pytest.raises(BadConfig, match="venue-000 begins 2 ids, type more of it: venue-0000, venue-0002"):
            await explain(bus, text, quiet)
        bus.ledger = [row for row in bus.ledger if getattr(row, "venue_order_id", "") != "venue-0000"]
    shown = await found(bus, text)
    assert whole in (shown["signal_id"], shown["client_order_id"], shown["venue_order_id"])


async def test_a_prefix_that_a_signal_and_another_orders_venue_id_share_is_not_guessed_at(bus: DeskBus) -> None:
    bus.ledger = [step(2, 2, SIGNALS[1] + "0"), *bus.ledger, step(0, 3, SIGNALS[1][:8] + "-venue")]
    with pytest.raises(BadConfig, match="begins 3 ids"):
        await explain(bus, SIGNALS[1][:8], quiet)
    assert (await found(bus, SIGNALS[1]))["signal_id"] == SIGNALS[1]  # all of it is not ambiguous


async def test_five_characters_are_too_few(bus: DeskBus) -> None:
    with pytest.raises(BadConfig, match="at least its first 6 characters"):
        await explain(bus, SIGNALS[1][:5], quiet)
    with pytest.raises(BadConfig, match="is not an order id"):
        await explain(bus, "perps.verdict.>", quiet)


async def test_an_id_that_the_ledger_does_not_know_is_one_line(bus: DeskBus) -> None:
    with pytest.raises(Refused, match=f"no signal and no order {SIGNALS[7]}, among its 9 entries"):
        await explain(bus, SIGNALS[7], quiet)
    with pytest.raises(Refused, match="among its 0 entries"):
        await explain(DeskBus(), SIGNALS[7], quiet)


async def test_an_edit_has_a_verdict_of_its_own_and_its_order_tells_of_it(bus: DeskBus) -> None:
    order = await found(bus, m.client_order_id(SIGNALS[2]))
    assert (order["signal_id"], order["edits"], order["edit_signal_ids"]) == (SIGNALS[2], False, [SIGNALS[3]])
    edit = await found(bus, SIGNALS[3])
    assert (edit["edits"], edit["client_order_id"]) == (True, m.client_order_id(SIGNALS[2]))


async def test_a_long_ledger_is_read_from_its_end_and_only_as_far_as_needed(
    bus: DeskBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WINDOW", 6)
    monkeypatch.setattr(module, "LONG", 18)
    bus.ledger += [fill(f"f{number}") for number in range(299)] + [decided(5), fill("last")]
    told: list[tuple[int, int]] = []

    def watch(line: str, done: int, total: int) -> None:
        told.append((done, total))

    await explain(bus, SIGNALS[5], watch)
    assert (bus.pages, told) == (2, [])
    shown = await explain(bus, "venue-0000", watch)
    assert shown["signal_id"] == SIGNALS[0]
    assert told[0] == (18, 310)
    assert 10 < len(told) <= 20
    assert [done for done, _ in told] == sorted(done for done, _ in told)


async def test_at_a_terminal_the_deciding_rule_stands_out(bus: DeskBus) -> None:
    page = io.StringIO()
    console = Console(file=page, width=120, force_terminal=True, color_system="standard", markup=False, highlight=False)
    draw_verdict(await found(bus, SIGNALS[1]), console)
    lines = page.getvalue().splitlines()
    deciding = [line for line in lines if "decides" in line]
    assert len(deciding) == 1
    assert "mark_stale" in deciding[0]
    assert "\x1b[1;31m" in deciding[0]  # bold red
    assert any("daily_loss=51 limit=50" in line and "\x1b[31m" in line for line in lines)
    assert any(SIGNALS[1] in line for line in lines)
    assert "denied, mark_stale: age=31 limit=5" in _last(lines)
    assert "venue" not in page.getvalue()  # it never came to that


async def test_an_approval_that_came_to_nothing_does_not_end_on_the_approval(bus: DeskBus) -> None:
    bus.ledger += [decided(6), step(6, status=m.OrderStatus.DENIED, reason="approval_expired")]
    page = io.StringIO()
    draw_verdict(await found(bus, SIGNALS[6]), Console(file=page, width=120))
    assert "approved, age=31 limit=5; the order is DENIED: approval_expired" in _last(page.getvalue().splitlines())


def _last(lines: list[str]) -> str:
    return [line for line in lines if line.strip()][-1]


async def test_a_verdict_of_a_version_without_rules_says_so(bus: DeskBus) -> None:
    bus.ledger.append(decided(6, approved=False, checks=()))
    page = io.StringIO()
    draw_verdict(await found(bus, SIGNALS[6]), Console(file=page, width=120))
    assert "kept no rules" in page.getvalue()


async def test_the_history_of_the_trading_state_is_told_newest_first_with_what_was_lost() -> None:
    bus = DeskBus()
    bus.entries.append(b"garbage")
    bus.entries.append(b"")
    bus.store(state(m.Trading.REDUCING, "f1", "bob"))
    rows = (await history(bus, 20))["history"]
    assert [row["revision"] for row in rows] == [4, 3, 2, 1]
    assert [row["trading"] for row in rows] == ["reducing", "halted", "halted", "halted"]
    assert (rows[0]["who"], rows[0]["flatten"], rows[0]["since"]) == ("bob", "f1", state().since)
    assert (rows[1]["reason"], rows[1]["since"]) == ("the stored trading state is gone", None)
    assert (rows[2]["reason"], rows[2]["since"]) == ("the stored trading state is unreadable", None)
    assert [row["revision"] for row in (await history(bus, 2))["history"]] == [4, 3]
