"""`perps-bot backtest` from its arguments to its files."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.backtest_runs import Bar
from tests.cli.commands import ROOT, environment, short_folder, wait_until
from tests.cli.test_arguments import CANDLES, Command
from tests.cli.test_replay import waves

FILES = ["fills.csv", "report.html", "result.json", "trades.csv"]
SWEEP = ("--sweep", "short=3,5", "--sweep", "long=12,20")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERPS_DATA_DIR", str(tmp_path / "var"))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture
def market() -> str:
    return str(waves(Path("BTC-USD_waves.csv"), 160))


def texts(folder: str) -> dict[str, str]:
    """All that lies there."""
    return {path.name: path.read_text() for path in sorted(Path(folder).iterdir())}


def of_json(command: Command, *arguments: str) -> dict[str, Any]:
    code, out, err = command("backtest", *arguments, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert isinstance(found, dict)
    return found


def test_a_backtest_shows_its_figures_and_says_where_its_files_are(command: Command, market: str) -> None:
    code, out, err = command("backtest", "--data", market, "--out", "found")
    assert code == 0, err
    for label in ("Total return", "Sharpe ratio", "Maximum drawdown", "Win rate", "Fees", "Average exposure"):
        assert label in out
    assert str(Path("found").absolute()) in err
    assert "100 %" in err
    assert sorted(texts("found")) == FILES


def test_json_on_stdout_is_the_file_but_for_its_points(command: Command, market: str) -> None:
    found = of_json(command, "--data", market, "--out", "found")
    kept = json.loads(texts("found")["result.json"])
    points = kept.pop("points")
    assert kept == found
    assert (len(points) >= 160, points[-1]["equity"]) == (True, found["closing_equity"])
    assert (found["products"], found["granularity"], found["currency"]) == (["BTC-USD"], "1m", "USD")
    assert found["figures"]["trades"] > 0


def test_trades_and_fills_are_tables_that_add_up(command: Command, market: str) -> None:
    found = of_json(command, "--data", market, "--out", "found")
    trades, fills = (list(csv.DictReader(texts("found")[f"{name}.csv"].splitlines())) for name in ("trades", "fills"))
    assert len(fills) == found["fills"] > 0
    assert len(trades) == found["figures"]["trades"] + found["figures"]["open_trades"]
    assert sum(float(fill["fee"]) for fill in fills) == pytest.approx(float(found["figures"]["fees"]))
    gained = float(found["closing_equity"]) - float(found["opening_equity"])
    assert sum(float(trade["pnl"]) for trade in trades) == pytest.approx(gained, abs=0.5)  # mid and last price differ


def test_the_same_backtest_gives_the_same_files_byte_for_byte(command: Command, market: str) -> None:
    for folder in ("one", "two"):
        assert command("backtest", market, "--out", folder)[0] == 0
    assert texts("one") == texts("two")


def test_without_out_the_files_lie_under_the_data_directory(command: Command, market: str) -> None:
    assert command("backtest", "--data", market)[0] == 0
    (folder,) = Path("var/backtests").iterdir()
    assert folder.name.startswith("BTC-USD-")
    assert sorted(texts(str(folder))) == FILES


def test_a_profile_that_trades_real_money_is_tried_without_its_keys(command: Command, market: str) -> None:
    assert of_json(command, "--data", market, "--profile", "spot", "--out", "found")["profile"] == "spot"


def test_a_parameter_and_a_setting_replace_the_profiles(command: Command, market: str) -> None:
    usual = of_json(command, "--data", market, "--out", "a")
    given = ("--set", "short=5", "--set", "sim.taker_fee=0")
    changed = of_json(command, "--data", market, "--out", "b", *given)
    assert changed["parameters"] == {"short": "5", "sim.taker_fee": "0"}
    assert (float(usual["figures"]["fees"]) > 0, float(changed["figures"]["fees"])) == (True, 0)


def test_a_period_is_all_that_is_run(command: Command, market: str) -> None:
    period = ("--from", "2025-10-01T01:00:00Z", "--to", "2025-10-01T02:00:00Z")
    found = of_json(command, "--data", market, "--out", "found", *period)
    assert (found["start"], found["end"][:16]) == ("2025-10-01T01:00:00Z", "2025-10-01T01:59")


def test_a_sweep_over_two_processes_finds_what_single_runs_find(command: Command, market: str) -> None:
    swept = of_json(command, "--data", market, "--out", "swept", "--jobs", "2", *SWEEP)
    assert swept["rank"] == "sharpe"
    assert len(swept["runs"]) == 4
    for number, run in enumerate(swept["runs"]):
        given = [word for name, value in run["parameters"].items() for word in ("--set", f"{name}={value}")]
        single = of_json(command, "--data", market, "--out", f"single-{number}", *given)
        assert single["figures"] == run["figures"]
        if number == 0:
            assert single == swept["best"]
    for name in ("fills.csv", "trades.csv"):
        assert texts("swept")[name] == texts("single-0")[name]


def test_a_sweep_is_ranked_as_told_and_the_same_every_time(command: Command, market: str) -> None:
    for folder in ("one", "two"):
        code, out, err = command(
            "backtest", "--data", market, "--out", folder, "--jobs", "2", "--rank", "total_return", *SWEEP
        )
        assert code == 0, err
        assert "4 combinations by Total return" in out
    assert texts("one") == texts("two")
    returns = [run["figures"]["total_return"] for run in json.loads(texts("one")["result.json"])["runs"]]
    assert returns == sorted(returns, reverse=True)


def test_a_combination_that_the_strategy_refuses_is_named_and_the_others_go_on(command: Command, market: str) -> None:
    code, out, err = command("backtest", "--data", market, "--out", "found", "--sweep", "short=3,12", "--jobs", "2")
    assert code == 0, err
    assert "failed: short = 12: " in err
    assert "short < long" in err
    assert "failed" in out
    runs = json.loads(texts("found")["result.json"])["runs"]
    assert ["error" in run for run in runs] == [False, True]
    assert "short &lt; long" in texts("found")["report.html"]


@pytest.mark.parametrize(
    ("line", "exit_code", "says"),
    [
        ("", 2, "--data is missing"),
        ("--data BTC-USD_none.csv", 4, "no such file"),
        ("--data BTC-USD_odd.csv", 4, "no data under known columns"),
        ("--data BTC-USD_empty.csv", 4, "is empty"),
        ("--data BTC-USD.csv --data BTC-USD.csv", 2, "more than one file"),
        ("--data DOGE-USD.csv", 2, "PERPS_MARKET_PRODUCTS=DOGE-USD"),
        ("--data BTC-USD.csv --profile nope", 2, "unknown profile 'nope'"),
        ("--data BTC-USD.csv --strategy nope", 2, "unknown strategy 'nope'"),
        ("--data BTC-USD.csv --set short=40", 2, "short < long"),
        ("--data BTC-USD.csv --set shrt=4", 2, "shrt"),
        ("--data BTC-USD.csv --set short=many", 2, "short"),
        ("--data BTC-USD.csv --set short", 2, "--set 'short' is not NAME=VALUE"),
        ("--data BTC-USD.csv --set short=3 --set short=4", 2, "--set names short twice"),
        ("--data BTC-USD.csv --set short=3 --sweep short=3,4", 2, "with --set and with --sweep"),
        ("--data BTC-USD.csv --sweep short=3,,4", 2, "an empty value"),
        ("--data BTC-USD.csv --rank sharpe", 2, "--rank goes with --sweep"),
        ("--data BTC-USD.csv --jobs 2", 2, "--jobs goes with --sweep"),
        ("--data BTC-USD.csv --sweep short=3,4 --rank luck", 2, "--rank 'luck' is none of"),
        ("--data BTC-USD.csv --granularity 7m", 2, "granularity must be one of"),
        ("--data BTC-USD.csv --from tomorrow", 2, "--from 'tomorrow' is not a time"),
        ("--data BTC-USD.csv --from 2025-10-02 --to 2025-10-02", 2, "--from is not before --to"),
        ("--data BTC-USD.csv --from 2031-01-01", 4, "no data for BTC-USD in the given period"),
        ("--data BTC-USD.csv --out BTC-USD.csv", 2, "is a file"),
        ("--data BTC-USD.csv --out BTC-USD.csv/deep/er", 2, "is a file"),
        ("--data BTC-USD.csv --nonsense", 2, "No such option: --nonsense"),
    ],
)
def test_bad_input_ends_with_one_line_and_leaves_nothing(
    command: Command, line: str, exit_code: int, says: str
) -> None:
    for name in ("BTC-USD.csv", "DOGE-USD.csv"):
        Path(name).write_text(CANDLES)
    Path("BTC-USD_empty.csv").write_text("")
    Path("BTC-USD_odd.csv").write_text("when,what\n1,2\n")
    before = sorted(Path.cwd().rglob("*"))
    code, told = command.refused("backtest", *line.split())
    assert (code, says in told) == (exit_code, True), told
    assert sorted(Path.cwd().rglob("*")) == before


def test_a_sweep_of_nothing_that_works_ends_like_its_first(command: Command) -> None:
    Path("BTC-USD.csv").write_text(CANDLES)
    code, _, err = command("backtest", "--data", "BTC-USD.csv", "--sweep", "short=30,40", "--out", "found")
    last = err.splitlines()[-1]
    assert (code, "none of 2 combinations could be run" in last, "short < long" in last) == (2, True, True)
    assert not Path("found").exists()


def test_files_that_cannot_be_written_leave_the_old_ones_whole(command: Command, market: str) -> None:
    Path("found/trades.csv").mkdir(parents=True)
    Path("found/report.html").write_text("old")
    code, _, err = command("backtest", "--data", market, "--out", "found")
    assert (code, "cannot be written" in err.splitlines()[-1]) == (2, True)
    assert [path.name for path in Path("found").iterdir() if path.name.startswith(".")] == []


def test_progress_is_a_line_every_tenth_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar(4) as bar:
        for hundredths in range(0, 401, 5):
            bar.tell(hundredths / 100, "here")
    assert capsys.readouterr().err.splitlines() == [f"{tenth * 10:3d} % here" for tenth in range(1, 11)]


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_ends_its_processes_and_writes_nothing(folder: Path, number: signal.Signals) -> None:
    file = waves(folder / "BTC-USD_waves.csv", 1_000)
    line = ("backtest", "--data", str(file), *SWEEP, "--jobs", "2", "--out", str(folder / "found"))
    running = subprocess.Popen(
        [sys.executable, "-m", "cli.main", *line],
        env=environment(folder / "var"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert running.stderr is not None
        first = running.stderr.readline()
        assert "10 %" in first, first + running.stderr.read()
        os.killpg(running.pid, number)
        _, err = running.communicate(timeout=60)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    assert (running.returncode, err.splitlines()[-1]) == (130, "interrupted, nothing is written"), err
    assert "Traceback" not in err
    assert not (folder / "found").exists()
    wait_until(lambda: not is_alive(running.pid), 30, lambda: "its processes live on")


def is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
