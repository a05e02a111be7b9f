"""What the workers of a data plane share: numbers and small values, in memory that all of them map, or in a Redis or Valkey."""
