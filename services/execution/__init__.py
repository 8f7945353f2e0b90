"""execution: turns approvals into orders at the venue, each once, and what happens to them into facts on the ledger.

Reads verdicts, adjustments, its own orders and fills, the trading state, product rules. Publishes order events, fills,
account snapshots, and what came of a cancel-all. Owns the only venue keys, the order life cycle, and the settling of
whatever is not known.
"""
