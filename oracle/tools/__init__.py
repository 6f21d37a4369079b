"""General tools without knowledge of the loss: running programs, progress, atomic files, parsing, printable text."""
