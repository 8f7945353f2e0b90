"""`perps-bot`, the operator's front door.

It owns the processes of `perps-bot run` (supervisord.conf) and talks to the bus as `operator`.
"""
