"""What all of translate speaks in: names, hostnames, matches, conditions, statuses."""
