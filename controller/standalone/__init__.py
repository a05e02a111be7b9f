"""The same loop on a directory of files, with the workers as children."""
