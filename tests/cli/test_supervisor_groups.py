"""supervisorctl takes the bare names that the playbook writes."""

from __future__ import annotations

from xmlrpc.client import Fault

import pytest

from cli.supervisor_groups import WRAPPED, full_names, make_plugin

PROCESSES = [
    {"group": "nats", "name": "nats"},
    {"group": "perps-bot", "name": "risk"},
    {"group": "perps-bot", "name": "strategy"},
]


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("perps-bot", "perps-bot:*"),
        ("risk", "perps-bot:risk"),
        ("nats", "nats"),
        ("perps-bot:*", "perps-bot:*"),
        ("perps-bot:risk nats", "perps-bot:risk nats"),
        ("risk strategy", "perps-bot:risk perps-bot:strategy"),
        ("all", "all"),
        ("unknown", "unknown"),
        ("", ""),
    ],
)
def test_bare_names_become_full_ones_and_nothing_else_changes(given: str, full: str) -> None:
    assert full_names(given, PROCESSES) == full


class Default:
    """The ordinary plug-in: notes what it is asked to do."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> object:
        return lambda arguments: self.done.append((name, arguments))


class Server:
    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def getAllProcessInfo(self) -> list[dict[str, str]]:
        if self._error:
            raise self._error
        return PROCESSES


class Options:
    def __init__(self) -> None:
        self.plugins = [Default()]


class Controller:
    def __init__(self, error: Exception | None = None) -> None:
        self.options = Options()
        self._server = Server(error)

    def get_supervisor(self) -> Server:
        return self._server


def test_every_command_about_processes_is_translated() -> None:
    controller = Controller()
    make_plugin(controller)
    for command in WRAPPED:
        getattr(controller, f"do_{command}")("perps-bot")
    assert controller.options.plugins[0].done == [(f"do_{command}", "perps-bot:*") for command in WRAPPED]


@pytest.mark.parametrize("error", [ConnectionRefusedError(), FileNotFoundError(), Fault(6, "SHUTDOWN_STATE")])
def test_without_a_server_the_ordinary_command_gets_to_say_so(error: Exception) -> None:
    controller = Controller(error)
    make_plugin(controller)
    controller.do_restart("perps-bot")  # type: ignore[attr-defined]
    assert controller.options.plugins[0].done == [("do_restart", "perps-bot")]


def test_the_plug_in_adds_nothing_to_help() -> None:
    assert make_plugin(Controller()).do_help("") is None
