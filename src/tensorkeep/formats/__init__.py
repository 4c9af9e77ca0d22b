"""Formats of others: one file each, one line in the table."""
