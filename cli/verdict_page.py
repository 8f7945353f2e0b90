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
    """`found` as `cli.output.jsonable` makes it."""
    approved = found["verdict"] == "approved"
    style = "bold green" if approved else "bold red"
    console.print(Text(f"{found['verdict']}: {found['reason']}  {found['detail']}", style=style))
    draw({key: value for key, value in found.items() if key not in ("verdict", "reason", "detail", "checks")}, console)
    if not found["checks"]:
        console.print("This verdict is of a version that kept no rules.")
        return
    console.print(_rules(found))


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
