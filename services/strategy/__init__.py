"""Decides when to buy and when to sell, and says so; whether it happens is risk's and execution's matter.

Reads marks and closed candles, and the ledger (verdicts, order events, fills). Publishes signals, and one decision per
mark. Owns the indicators and the trailing stops. Strategies are plug-ins: see `plugin.py`.
"""
