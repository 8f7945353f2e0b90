"""Says yes or no to every signal, and stops everything when it must.

Reads signals, marks, feed states, product rules, the account, the ledger (verdicts, order events, fills), the trading
state and the operator's orders, halt, resume and reduce-only. Publishes verdicts, the trading state, risk figures and
the audit of those commands. Owns the limits, the reservations of approved orders and edits, the daily loss, the halt
and the reduce-only that follows a difference between the account and the books.
"""
