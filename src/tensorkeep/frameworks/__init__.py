"""Frameworks: one file each, one line in the table. Knows objects and trees, and nothing of files."""
