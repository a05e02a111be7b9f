"""TLS on both sides."""
