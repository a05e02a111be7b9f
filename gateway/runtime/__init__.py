"""What is in force in one worker."""
