"""Results on stdout: pure JSON for programs, tables for people at a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from cli.journal import plain

Json = dict[str, Any]
LEFT_OUT = ("status", "time_in_force", "post_only", "trade_id", "stop_price", "filled_value")  # of rows on a terminal


def jsonable(value: object) -> Any:
    """Structs as objects, Decimals as strings without an exponent, times in RFC 3339."""
    return _plain(msgspec.to_builtins(value, builtin_types=(Decimal,), str_keys=True))


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


def show(result: Json, as_json: bool) -> None:
    """A result of a tool: its figures and, below them, a table for every list of rows."""
    found = jsonable(result)
    if is_for_people(as_json):
        draw(found, Console(markup=False))
    else:
        print(json.dumps(found, indent=2), flush=True)


def is_for_people(as_json: bool) -> bool:
    return not as_json and sys.stdout.isatty()


def draw(found: Json, console: Console) -> None:
    figures = Table(show_header=False, box=None)
    figures.add_column(style="bold")
    figures.add_column(overflow="fold")
    tables: list[tuple[str, Sequence[Json]]] = []
    for name, value in found.items():
        if isinstance(value, dict) and value and all(isinstance(part, dict) for part in value.values()):
            tables.append((name, [{"": key, **part} for key, part in value.items()]))
        elif isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
            tables.append((name, value))
        elif isinstance(value, dict):
            for key, part in value.items():
                figures.add_row(f"{name} {key}", _cell(part))
        else:
            figures.add_row(name, _cell(value))
    console.print(figures)
    for name, rows in tables:
        console.print(_table(name, rows))


def _table(name: str, rows: Sequence[Json]) -> Table:
    """A terminal is narrow: empty columns are left out, and what stands in the JSON and in `orders show`."""
    kept = [key for row in rows for key, value in row.items() if _cell(value) != "-"]
    columns = [key for key in dict.fromkeys(kept) if key not in LEFT_OUT or "status_word" not in kept]
    table = Table(box=SIMPLE, header_style="bold", title=name, title_justify="left")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    return table


def _cell(value: object) -> str:
    if value is None or value == "" or value == [] or value == {}:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value) if isinstance(value, dict | list) else str(value)
