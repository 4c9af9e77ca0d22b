"""Backends: bytes at places. The only rooms that know the operating system."""
