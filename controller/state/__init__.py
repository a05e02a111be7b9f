"""What is known of all objects, and what was worked out of them."""
