"""Which programs stopped by themselves, as supervisord's log tells: its interface forgets how a quick one died."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from cli.errors import BY_EXIT_STATUS
from cli.supervise import last_line
from libs.common.errors import StackFailed

DEATHS_MAX = 3
WINDOW_SECONDS = 30.0
EXITED = re.compile(r"exited: (\S+) \((?:exit status (\d+))?.*\)$", re.MULTILINE)
NOT_SPAWNED = re.compile(r"spawnerr: (.*)$", re.MULTILINE)


class Deaths:
    """Reads on from where the log ended when this was made."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._log = logs / "supervisord.log"
        self._offset = self._log.stat().st_size if self._log.exists() else 0
        self._times: dict[str, list[float]] = {}

    def check(self) -> None:
        """Raises Stop with the last words of a program that ends for good, or again and again."""
        now = time.monotonic()
        news = self._news()
        if found := NOT_SPAWNED.search(news):
            raise StackFailed(f"a program cannot be started: {found[1]}")
        for name, status in EXITED.findall(news):
            words = last_words(self._logs / f"{name}.log")
            if (kind := BY_EXIT_STATUS.get(int(status or 0))) is not None:
                raise kind(words if words.startswith(f"{name}:") else f"{name}: {words}")
            recent = [at for at in self._times.get(name, []) if now - at < WINDOW_SECONDS]
            self._times[name] = [*recent, now]
            if len(self._times[name]) >= DEATHS_MAX:
                raise StackFailed(f"{name} stops again and again: {words or 'without a word'}")

    def _news(self) -> str:
        """Whole lines that were added."""
        try:
            with self._log.open("rb") as file:
                if self._log.stat().st_size < self._offset:
                    self._offset = 0  # rotated
                file.seek(self._offset)
                added = file.read()
        except FileNotFoundError:
            return ""
        whole = added[: added.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.decode("utf-8", "replace")


def last_words(log_file: Path) -> str:
    """What a program said last: the message of a JSON log line, with the error of a defect, or the bare line."""
    line = last_line(log_file)
    try:
        record = json.loads(line)
        message = str(record["message"])
    except (ValueError, KeyError, TypeError):
        return line
    exception = str(record.get("exception", "")).strip()
    return f"{message}: {exception.splitlines()[-1]}" if exception else message
