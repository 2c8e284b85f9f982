"""The command line: thin, a file per help panel."""
