"""What the five services share: messages, bus, clock, settings, telemetry, the service loop. No trading decisions."""
