"""Scanning: what a file would do if it were loaded the usual way."""
