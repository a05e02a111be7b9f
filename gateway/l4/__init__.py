"""Connections and datagrams that are passed on."""
