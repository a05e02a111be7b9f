"""What every part may use: the time, logs, durations, and what a process asks of its kernel."""
