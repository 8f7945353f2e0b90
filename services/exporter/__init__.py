"""The view from outside: business metrics, `metrics.json`, `account.json` and the status page.

Reads everything: marks, feed states, decisions, signals, the account, risk figures, service statuses, tool outcomes,
the trading state, and the ledger (verdicts, order events, fills). Publishes nothing but its own status. Owns the
`perps_bot_*` metrics of the monitoring playbook, the files `metrics.json` and `account.json`, and the page on its port.
"""
