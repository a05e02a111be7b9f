"""Policies that are attached to others: which is in force, and what it comes to."""
