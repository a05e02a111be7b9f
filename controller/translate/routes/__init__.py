"""Routes, to the rules of what they are attached to."""
