"""A plug-in of supervisorctl: bare names. `restart perps-bot` is `restart perps-bot:*`, `restart risk` is
`restart perps-bot:risk`. Loaded through [ctlplugin:perps_bot] in supervisord.conf."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from xmlrpc.client import Error

from supervisor.supervisorctl import Controller, ControllerPluginBase

WRAPPED = ("restart", "start", "stop", "status", "signal", "tail")


def full_names(arguments: str, processes: Iterable[Mapping[str, str]]) -> str:
    """The arguments with every bare name of a group or of a process inside a group made full."""
    full: dict[str, str] = {}
    for process in processes:
        if process["group"] != process["name"]:
            full[process["group"]] = f"{process['group']}:*"
            full.setdefault(process["name"], f"{process['group']}:{process['name']}")
    return " ".join(full.get(word, word) for word in arguments.split())


def make_plugin(controller: Controller) -> ControllerPluginBase:
    """Put the translation before the ordinary commands; the plug-in itself adds no command of its own."""
    default = controller.options.plugins[0]
    for command in WRAPPED:
        setattr(controller, f"do_{command}", _translated(controller, getattr(default, f"do_{command}")))
    return _Quiet(controller)


class _Quiet(ControllerPluginBase):  # type: ignore[misc]  # supervisor ships no types
    """`help` asks every plug-in; the ordinary one has said everything already."""

    def do_help(self, arg: str) -> None:
        return None


def _translated(controller: Controller, command: Callable[[str], object]) -> Callable[[str], object]:
    def run(arguments: str) -> object:
        try:
            processes = controller.get_supervisor().getAllProcessInfo()
        except (OSError, Error):
            processes = []  # no supervisord: the ordinary command says so
        return command(full_names(str(arguments), processes))

    return run
