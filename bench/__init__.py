"""What is measured and not asserted: a figure belongs in a report, a limit in a test."""
