"""Reads the venue's market data: WebSocket (heartbeats, ticker, market_trades), REST candles, trades and products.

Publishes marks, closed candles, feed states and product rules. Owns the connection, its sequence, and freshness: what
it confirms is current, what it cannot vouch for it does not confirm.
"""
