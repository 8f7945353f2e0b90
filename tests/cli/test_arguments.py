"""What the operator may get wrong ends with one line and a code of its own, before anything is started."""

from __future__ import annotations

import gzip
import socket
import sys
from pathlib import Path

import msgspec
import pytest

from cli.errors import EXIT_CODES
from cli.main import main
from cli.plan import own_ports
from libs.common import messages as m

CANDLES = "time,open,high,low,close,volume\n1759276800,100,101,99,100.5,1\n1759277100,100.5,102,100,101,1\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERPS_DATA_DIR", str(tmp_path / "var"))
    for name, port in own_ports().items():
        monkeypatch.setenv(name, port)


class Command:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command."""
        self._monkeypatch.setattr(sys, "argv", ["perps-bot", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = self._capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    def refused(self, *arguments: str) -> tuple[int, str]:
        """Exit code and the one line of a command that must not get anywhere."""
        code, out, err = self(*arguments)
        assert out == ""
        assert err.count("\n") == 1, err
        assert set(path.name for path in Path("var").rglob("*.*")) <= {"tooling.jsonl", "tooling.lock"}
        return code, err


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


def test_help_tells_every_exit_code(command: Command) -> None:
    for arguments in ((), ("--help",), ("run", "--help")):
        code, out, _ = command(*arguments)
        told = " ".join(out.split())
        assert code == 0
        assert all(f"{number} {meaning}" in told for number, meaning in EXIT_CODES)


def test_an_unknown_profile_names_the_known_ones(command: Command) -> None:
    code, line = command.refused("run", "--profile", "nope")
    assert (code, all(name in line.partition("there are")[2] for name in ("dev", "prod", "spot"))) == (2, True)


def test_the_profile_may_stand_before_the_command_or_in_the_environment(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("--profile", "dev", "run", "--check-config")[::2] == (0, "profile dev is valid\n")
    monkeypatch.setenv("PERPS_PROFILE", "nope")
    assert command.refused("status")[0] == 2
    assert command("run", "--profile", "dev", "--check-config")[0] == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PERPS_FOO", "1"),
        ("PERPS_MARKET_GRANULARITY", "7m"),
        ("PERPS_MARKETDATA_NONSENSE", "1"),
        ("PERPS_STRATEGY_NAME", "no.such:Strategy"),
        ("PERPS_RISK_DAILY_LOSS_LIMIT", "-3"),
        ("PERPS_EXECUTION_ACCOUNT_SECONDS", "0"),
        ("PERPS_EXPORTER_HOST", ""),
        ("PERPS_SIM_CASH", "-1"),
        ("PERPS_LOG_LEVEL", "LOUD"),
    ],
)
def test_every_section_is_checked_before_anything_starts(
    command: Command, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    for arguments in (("run", "--check-config"), ("run",), ("--dev-fast",)):
        assert command.refused(*arguments)[0] == 2


@pytest.mark.parametrize("value", ["70000", "abc", "0"])
@pytest.mark.parametrize("name", ["PERPS_NATS_PORT", "PERPS_EXECUTION_PORT", "PERPS_SIM_PORT"])
def test_a_port_has_to_be_one(command: Command, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert command.refused("run")[0] == 2


def test_a_profile_that_trades_real_money_wants_its_key_and_is_neither_replayed_nor_tried(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PERPS_VENUE_REST_URL", "PERPS_VENUE_WS_URL", "PERPS_VENUE_USER_WS_URL"):
        monkeypatch.delenv(name)
    Path("BTC-USD.csv").write_text(CANDLES)
    assert "needs a CDP key file" in command.refused("run", "--profile", "spot")[1]
    assert "trades real money" in command.refused("--profile", "spot", "--dev-fast")[1]
    assert "trades real money" in command.refused("run", "--profile", "spot", "--replay", "BTC-USD.csv")[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--from", "2025-01-01"), "--from goes with --replay"),
        (("--speed", "300"), "--speed goes with --replay"),
        (("--json",), "--json goes with --replay"),
        (("--replay", "BTC-USD.csv", "--from", "tomorrow"), "--from 'tomorrow' is not a time"),
        (("--replay", "BTC-USD.csv", "--from", "2025-10-02", "--to", "2025-10-01"), "--from is not before --to"),
        (("--replay", "BTC-USD.csv", "--speed", "-1"), "--speed must not be negative"),
        (("--replay", "BTC-USD.csv", "--granularity", "7m"), "granularity must be one of"),
        (("--replay", "BTC-USD.csv", "--data-dir", "."), "--data-dir . is not empty"),
    ],
)
def test_arguments_of_a_replay_are_checked(command: Command, arguments: tuple[str, ...], says: str) -> None:
    Path("BTC-USD.csv").write_text(CANDLES)
    code, line = command.refused("run", *arguments)
    assert (code, says in line) == (2, True), line


def test_a_replay_file_that_is_missing_truncated_empty_or_garbage_is_bad_data(command: Command) -> None:
    Path("BTC-USD_cut.csv.gz").write_bytes(gzip.compress(CANDLES.encode() * 50)[:-40])
    Path("BTC-USD_empty.csv").write_text("")
    Path("BTC-USD_garbage.csv").write_bytes(b"\xff\xfe\x00garbage")
    Path("BTC-USD_late.csv").write_text(CANDLES)
    assert command.refused("run", "--replay", "BTC-USD_none.csv")[0] == 4
    assert command.refused("run", "--replay", "BTC-USD_cut.csv.gz")[0] == 4
    assert command.refused("run", "--replay", "BTC-USD_empty.csv")[0] == 4
    assert command.refused("run", "--replay", "BTC-USD_garbage.csv")[0] == 4
    assert command.refused("run", "--replay", "BTC-USD_late.csv", "--from", "2031-01-01")[0] == 4


def test_a_good_replay_file_is_counted_without_starting_anything(command: Command) -> None:
    Path("BTC-USD.csv").write_text(CANDLES)
    code, _, line = command("run", "--replay", "BTC-USD.csv", "--check-config")
    assert (code, line) == (0, "profile dev is valid, and so are 8 ticks of BTC-USD\n")
    assert not Path("var").exists()


def test_a_port_in_use_names_the_variable_to_change(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("PERPS_RISK_PORT", str(port))
        code, _, err = command("run")
    assert code == 3
    assert f"port {port} cannot be had" in err.splitlines()[-1]
    assert "PERPS_RISK_PORT" in err


def test_a_port_that_two_parts_want_names_both_variables(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERPS_RISK_PORT", "39876")
    monkeypatch.setenv("PERPS_SIM_PORT", "39876")
    code, _, err = command("run")
    assert (code, "wanted twice" in err) == (3, True)
    assert "PERPS_RISK_PORT" in err
    assert "PERPS_SIM_PORT" in err


def test_without_a_nats_server_to_be_found_it_says_how_to_get_one(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERPS_NATS_SERVER", "/nonexistent/nats-server")
    code, _, err = command("run")
    assert (code, "no nats-server 2.12 or newer" in err.splitlines()[-1]) == (5, True)


def test_a_data_directory_too_deep_for_a_socket_is_refused(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = Path.cwd() / ("d" * 100)
    monkeypatch.setenv("PERPS_DATA_DIR", str(deep))
    code, _, err = command("run")
    assert (code, "set PERPS_DATA_DIR to a shorter one" in err) == (2, True)
    assert not deep.exists()


def test_a_data_directory_that_cannot_be_written_is_refused(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").write_text("")
    monkeypatch.setenv("PERPS_DATA_DIR", "file/var")
    code, _, err = command("run")
    assert (code, "cannot be written" in err) == (2, True)


@pytest.mark.parametrize("name", ["halt", "resume", "reduce-only", "flatten", "cancel-all"])
def test_a_change_of_the_trading_state_wants_a_reason(command: Command, name: str) -> None:
    for arguments in ((name,), (name, "--reason", " ")):
        code, line = command.refused(*arguments)
        assert (code, "needs a reason" in line) == (2, True)


def test_with_the_bus_down_commands_say_so_at_once(command: Command) -> None:
    for arguments in (("status",), ("status", "--json"), ("halt", "--reason", "test")):
        code, line = command.refused(*arguments)
        assert (code, "no NATS server" in line) == (5, True)


@pytest.mark.parametrize("name", ["halt", "flatten", "cancel-all"])
def test_with_the_bus_down_an_operator_who_wants_out_is_told_the_way_that_is_left(command: Command, name: str) -> None:
    code, line = command.refused(name, "--reason", "test")
    assert (code, "no NATS server" in line) == (5, True)
    assert "`perps-bot orders cancel-all`" in line


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--order-qty 0.01", "--order-qty goes with --preview-order"),
        ("--preview-order --account-snapshot", "--preview-order stands alone, without --account-snapshot"),
        ("--preview-order orders list", "--preview-order stands alone, without orders"),
        ("--preview-order --order-side sell --order-type market --order-qty 1", "--order-symbol is missing"),
        ("orders preview --symbol BTC-USD --side buy --type market --qty ten", "--qty 'ten' is not a number"),
        ("orders place --symbol BTC-USD --side buy --type limit --qty 1 --price 5 --tif day", "--tif 'day' is none of"),
        ("orders place --symbol BTC-USD --side buy --type market --qty 1 --request-id= ", "--request-id is empty"),
        ("orders preview --symbl BTC-USD", "No such option: --symbl"),
        ("orders list --limit many", "--limit"),
        ("orders list --open --since 2026-01-01", "--since does not go with --open"),
        ("orders cancel", "Missing argument 'ORDER...'"),
        ("fills list --since yesterday", "--since 'yesterday' is not a time"),
        ("orders nonsense", "No such command 'nonsense'"),
        ("orders", "Missing command"),
        ("risk", "Missing command"),
        ("risk explain", "Missing argument 'ID'"),
        ("risk history --limit 65", "--limit"),
        ("flatten --reason drill --wait-seconds 0", "--wait-seconds"),
        ("account classify", "Missing argument 'KIND'"),
        ("account classify gift --currency USD --reason drill", "KIND 'gift' is none of deposit, withdrawal"),
        ("account classify deposit --currency USD", "deposit needs a reason: --reason 'why'"),
        ("account handover --product BTC-USD --quantity -x --reason drill", "--quantity 'x' is not a number"),
        ("account handover --product BTC-USD --quantity -1", "handover needs a reason"),
        ("account handover --product BTC-USD --quantity 1 --reason drill --request-id= ", "--request-id is empty"),
    ],
)
def test_a_mistyped_tool_names_the_flag_and_counts_as_a_tooling_error(command: Command, line: str, says: str) -> None:
    code, told = command.refused(*line.split())
    assert (code, says in told) == (2, True), told
    waiting = Path("var/data/perps_bot/dev/tooling.jsonl").read_text().splitlines()
    outcome = msgspec.json.decode(waiting[0], type=m.Tooling)
    assert (len(waiting), outcome.ok, says in outcome.error) == (1, False, True)


def test_a_mistake_in_what_is_no_tool_counts_as_none(command: Command) -> None:
    for line in ("run --nonsense", "status --nonsense", "restart", "--json status"):
        assert command.refused(*line.split())[0] == 2
    assert not Path("var").exists()


def test_restarting_nothing_or_something_unknown_is_refused(command: Command) -> None:
    code, line = command.refused("restart", "nonsense")
    assert (code, "unknown service 'nonsense'" in line) == (2, True)
    code, line = command.refused("restart", "risk")
    assert (code, "no stack runs on" in line) == (6, True)


def test_dev_fast_stands_alone(command: Command) -> None:
    code, line = command.refused("--dev-fast", "status")
    assert (code, "--dev-fast stands alone" in line) == (2, True)
