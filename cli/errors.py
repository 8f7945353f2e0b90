"""How a command ends: exit codes beside those of `libs.common.errors`, and the one table that tells them all."""

from __future__ import annotations

from libs.common.errors import BadConfig, BadData, BusDown, PortInUse, StackFailed, Stop

INTERRUPTED = 130  # by Ctrl-C, before the command had done its work


class Refused(Stop):
    """A service understood the command and said no."""

    exit_code = 7


EXIT_CODES = (
    (0, "done; for `run`, stopped by the operator"),
    (Stop.exit_code, "a defect"),
    (BadConfig.exit_code, "settings or arguments"),
    (PortInUse.exit_code, "a port is in use, or a stack runs on the same data directory"),
    (BadData.exit_code, "a replay file"),
    (BusDown.exit_code, "no NATS server, or it refuses us"),
    (StackFailed.exit_code, "a service failed, or the books differ from the venue's account"),
    (Refused.exit_code, "a service refused the command"),
    (INTERRUPTED, "interrupted before the work was done"),
)
BY_EXIT_STATUS: dict[int, type[Stop]] = {kind.exit_code: kind for kind in (BadConfig, PortInUse, BadData)}
