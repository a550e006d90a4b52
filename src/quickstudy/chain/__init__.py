"""The chain that leads to a model: data → tasks → parameters → code → environment → run → version → promotions."""
