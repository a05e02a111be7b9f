"""From what was translated to what is in force: the loop, its barrier, and the feed to data planes."""
