"""The simulated venue: a pure matching core, and a server that speaks Coinbase Advanced Trade over real sockets."""
