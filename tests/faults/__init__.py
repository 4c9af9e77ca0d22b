"""Faults: children that save, and what the tests do to them. Real kills, real system calls that fail, real crash states."""
