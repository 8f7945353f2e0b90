"""Says yes or no to every signal, and stops everything when it must.

Reads signals, marks, feed states, product rules, the account, the ledger (verdicts, order events, fills), the trading
state and the operator's halt, resume and reduce-only. Publishes verdicts, the trading state, risk figures and the audit
of those commands. Owns the limits, the reservations of approved orders, the daily loss and the halt.
"""
