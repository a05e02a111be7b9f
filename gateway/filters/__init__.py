"""One file per filter. Each has `build(spec)`, which prepares all that the spec fixes and returns a function."""
