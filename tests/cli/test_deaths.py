"""A program that keeps dying is given up with its last words, in the log's own lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli import deaths as deaths_module
from cli.deaths import Deaths, last_words
from libs.common.errors import BadConfig, PortInUse, StackFailed

STAMP = "2026-11-22 17:03:54,921"


class Logs:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.add("exited: risk (exit status 2; not expected)")  # of a run before this one
        self.deaths = Deaths(folder)

    def add(self, line: str, end: str = "\n") -> None:
        with (self.folder / "supervisord.log").open("a") as file:
            file.write(f"{STAMP} WARN {line}{end}")

    def die(self, name: str, how: str) -> None:
        self.add(f"exited: {name} ({how}; not expected)")


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path)


def test_what_another_run_left_in_the_log_and_orderly_stops_do_not_count(logs: Logs) -> None:
    for _ in range(5):
        logs.add("stopped: risk (exit status 0)")
        logs.deaths.check()


def test_a_wrong_setting_or_a_taken_port_is_final_and_keeps_its_kind(logs: Logs) -> None:
    (logs.folder / "risk.log").write_text("risk: bad limits\n")
    logs.die("risk", "exit status 2")
    with pytest.raises(BadConfig, match=r"^risk: bad limits$"):
        logs.deaths.check()
    (logs.folder / "venue.log").write_text("port 9110 is in use\n")
    logs.die("venue", "exit status 3")
    with pytest.raises(PortInUse, match=r"^venue: port 9110 is in use$"):
        logs.deaths.check()


@pytest.mark.parametrize("how", ["exit status 1", "terminated by SIGKILL", "terminated by SIGSEGV (core dumped)"])
def test_the_third_death_in_a_short_time_is_one_too_many(logs: Logs, how: str) -> None:
    (logs.folder / "risk.log").write_text('{"message": "no memory"}\n')
    for _ in range(2):
        logs.die("risk", how)
        logs.deaths.check()
    logs.die("strategy", how)
    logs.deaths.check()
    logs.die("risk", how)
    with pytest.raises(StackFailed, match=r"^risk stops again and again: no memory$"):
        logs.deaths.check()


def test_deaths_of_long_ago_are_forgotten(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deaths_module, "WINDOW_SECONDS", 0.0)
    for _ in range(5):
        logs.die("risk", "terminated by SIGKILL")
        logs.deaths.check()


def test_half_a_line_waits_for_its_other_half_and_a_rotated_log_is_read_from_its_start(logs: Logs) -> None:
    logs.add("exited: risk (exit sta", end="")
    logs.deaths.check()
    (logs.folder / "supervisord.log").write_text("exited: risk (exit status 2; not expected)\n")
    with pytest.raises(BadConfig):
        logs.deaths.check()


def test_a_program_that_cannot_be_started_at_all_is_final(logs: Logs) -> None:
    logs.add("spawnerr: can't find command '/no/python'")
    with pytest.raises(StackFailed, match="can't find command"):
        logs.deaths.check()


def test_last_words_are_the_message_and_the_error_of_a_defect(tmp_path: Path) -> None:
    log = tmp_path / "risk.log"
    assert last_words(log) == ""
    record = {"message": "stopped by a defect", "exception": "Traceback\n  ...\nKeyError: 'x'"}
    log.write_text(json.dumps(record) + "\n\n")
    assert last_words(log) == "stopped by a defect: KeyError: 'x'"
    log.write_text("a bare line\n")
    assert last_words(log) == "a bare line"
