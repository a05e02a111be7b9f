"""Requests that pass only if servers outside say so (ExternalAuth, GEP-1494)."""
