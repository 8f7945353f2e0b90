"""The whole system in one process: five services, the bus and the venue on one virtual clock, everything from a seed."""
