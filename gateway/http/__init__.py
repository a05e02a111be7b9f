"""HTTP without I/O: messages in and out as bytes."""
