"""The five cores over recorded data, in one process, without faults: what is tested is what trades."""
