"""Errors, sorted by what the caller does next.

PerpsError
├── Retryable        try again later: nothing happened, and it is certain that nothing happened
├── Rejected         give up: the other side understood and said no
├── OutcomeUnknown   find out: it was sent, and the answer is missing or unreadable
├── Conflict         read again and decide again: somebody else wrote first
└── Stop             end the process with one line for the operator and a distinct exit code
    ├── BadConfig    2: settings or arguments
    ├── PortInUse    3: another process holds the port
    ├── BadData      4: a replay file
    ├── BusDown      5: no NATS server, or it refuses us
    └── StackFailed  6: a service did not come up, or the books do not balance
"""


class PerpsError(Exception):
    """Base of every error that is ours."""


class Retryable(PerpsError):
    """Certainly not done; may be tried again."""


class Rejected(PerpsError):
    """Refused for good; `reason` is the other side's own word."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class OutcomeUnknown(PerpsError):
    """Sent, but nobody knows with what result. Never assume; ask."""


class Conflict(PerpsError):
    """A compare-and-set lost: the state moved on since it was read."""


class Stop(PerpsError):
    """The process cannot go on. The message is the one line that the operator sees."""

    exit_code = 1

    def __str__(self) -> str:
        """In one line whatever it quotes: a setting or a file may hold any text."""
        return " ".join(super().__str__().splitlines())


class BadConfig(Stop):
    exit_code = 2


class PortInUse(Stop):
    exit_code = 3


class BadData(Stop):
    exit_code = 4


class BusDown(Stop):
    exit_code = 5


class StackFailed(Stop):
    exit_code = 6
