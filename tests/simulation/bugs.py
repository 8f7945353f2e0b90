"""The catalogue of planted bugs, by name: what every check of the simulation is shown to catch."""

from __future__ import annotations

from tests.simulation import bugs_common, bugs_execution, bugs_risk
from tests.simulation.planting import Bug

MODULES = (bugs_common, bugs_execution, bugs_risk)
BUGS = {bug.name: bug for module in MODULES for bug in vars(module).values() if isinstance(bug, Bug)}
