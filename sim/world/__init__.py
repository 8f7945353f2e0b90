"""The whole system in one process: services, bus and venue on one virtual clock, everything from a seed."""
