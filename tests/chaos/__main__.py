"""Chaos on real processes: faults from a seed against the native stack under load, and its books at the end.

`python -m tests.chaos [--minutes 60] [--seed 1] [--json]`; `--schedule N` prints the seed's first N faults and leaves.
Fails with one line, and keeps the data directory and its logs, where anything is broken.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import shutil
import sys
import tempfile
from pathlib import Path

import uvloop

from libs.common.errors import PerpsError
from tests.chaos.campaign import campaign
from tests.chaos.faults import bouts
from tests.chaos.report import Bar, as_json, show, verdict


def print_schedule(seed: int, faults: int) -> None:
    dealt = ((number, fault) for number, bout in enumerate(bouts(seed), 1) for fault in bout)
    for number, fault in itertools.islice(dealt, faults):
        switches = ", ".join(f"{name}={value}" for name, value in fault.switches.items())
        lasts = f"{fault.seconds:5.2f} s" if fault.seconds else "at once"
        print(f"bout {number:4d}  +{fault.after:4.2f} s  {lasts:8s}  {fault.means} {switches or fault.what}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--minutes", type=float, default=60, help="how long the faults go on")
    parser.add_argument("--seed", type=int, default=1, help="of the faults, the operator and the stretch of the market")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    parser.add_argument("--schedule", type=int, metavar="N", help="print the first N faults of the seed, and leave")
    arguments = parser.parse_args()
    if arguments.schedule:
        print_schedule(arguments.seed, arguments.schedule)
        return 0
    logging.getLogger().addHandler(logging.NullHandler())  # a lost bus is one of the faults, and no news
    folder = Path(tempfile.mkdtemp(prefix="perps-"))
    trouble = "it was interrupted"
    try:
        with Bar(arguments.minutes) as bar:
            result = uvloop.run(campaign(folder, arguments.minutes, arguments.seed, bar.tell))
        if arguments.json:
            print(json.dumps(as_json(result), indent=2))
        else:
            show(result)
        trouble = verdict(result)
    except KeyboardInterrupt:
        pass
    except PerpsError as error:
        trouble = f"{type(error).__name__}: {error}"
    finally:
        if trouble:
            print(f"chaos: {trouble}; data and logs are kept in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder)
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main())
