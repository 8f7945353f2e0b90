"""How a command ends: exit codes beside those of `libs.common.errors`, and the one table that tells them all."""

from __future__ import annotations

from libs.common.errors import (
    BadConfig,
    BadData,
    BusDown,
    OutcomeUnknown,
    PerpsError,
    PortInUse,
    Rejected,
    Retryable,
    StackFailed,
    Stop,
)

INTERRUPTED = 130  # by Ctrl-C, before the command had done its work


class Refused(Stop):
    """A service or the venue understood the command and said no."""

    exit_code = 7


class VenueSilent(Stop):
    """The venue gave no readable answer."""

    exit_code = 8


class OutcomePending(Stop):
    """It was sent, and what came of it is not known yet."""

    exit_code = 9


EXIT_CODES = (
    (0, "done; for `run`, stopped by the operator"),
    (Stop.exit_code, "a defect"),
    (BadConfig.exit_code, "settings or arguments"),
    (PortInUse.exit_code, "a port is in use, or a stack runs on the same data directory"),
    (BadData.exit_code, "a replay file"),
    (BusDown.exit_code, "no NATS server, or it refuses us"),
    (StackFailed.exit_code, "a service failed, or the books differ from the venue's account"),
    (Refused.exit_code, "refused by a service or by the venue"),
    (VenueSilent.exit_code, "the venue gave no readable answer, ask again"),
    (OutcomePending.exit_code, "sent, and the outcome is not known yet"),
    (INTERRUPTED, "interrupted before the work was done"),
)
BY_EXIT_STATUS: dict[int, type[Stop]] = {kind.exit_code: kind for kind in (BadConfig, PortInUse, BadData)}


def as_stop(error: PerpsError) -> Stop:
    """Every error of ours as the end of a command, with its own code and one line."""
    line = " ".join(str(error).split())
    match error:
        case Stop():
            return error
        case Rejected():
            return Refused(f"refused by the venue: {line}")
        case Retryable() | OutcomeUnknown():
            return VenueSilent(f"the venue gave no readable answer: {line}")
    return Stop(line)
