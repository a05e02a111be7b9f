"""Which rule answers a request."""
