"""A verdict for people at a terminal: the rule that decided stands out."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.output import Json, draw
from libs.common.messages import CheckOutcome

LOOKS = {  # mark and style
    CheckOutcome.PASSED: ("✓", "green"),
    CheckOutcome.VIOLATED: ("✗", "red"),
    CheckOutcome.UNKNOWN: ("?", "yellow"),
    CheckOutcome.EXEMPT: ("-", "dim"),
}


def draw_verdict(found: Json, console: Console) -> None:
    """`found` as `cli.output.jsonable` makes it. The verdict comes last: the rules fill a screen."""
    told = ("verdict", "reason", "detail", "deciding_rule", "checks")
    draw(_given({key: value for key, value in found.items() if key not in told}), console)
    if found["checks"]:
        console.print(_rules(found))
    else:
        console.print("This verdict is of a version that kept no rules.")
    approved = found["verdict"] == "approved"
    line = f"approved, {found['detail']}" if approved else f"denied, {found['reason']}: {found['detail']}"
    if found["status"]:
        line += f"; the order is {found['status']}: {found['status_reason']}"
    console.print(Text(line, style="bold green" if approved else "bold red"))


def _given(found: Json) -> Json:
    """Without what is not there."""
    parts = {key: _given(value) if isinstance(value, dict) else value for key, value in found.items()}
    return {key: value for key, value in parts.items() if value not in (None, False, "", [], {})}


def _rules(found: Json) -> Table:
    table = Table(box=SIMPLE, header_style="bold", title="rules", title_justify="left")
    for name in ("", "rule", "outcome", "reason", "looked at"):
        table.add_column(name, overflow="fold")
    for check in found["checks"]:
        mark, style = LOOKS[CheckOutcome(check["outcome"])]
        decided = check["rule"] == found["deciding_rule"]
        outcome = f"{check['outcome']}, decides" if decided else check["outcome"]
        cells = (mark, check["rule"], outcome, check["reason"], check["detail"])
        table.add_row(*(Text(cell) for cell in cells), style=f"bold {style}" if decided else style)
    return table
