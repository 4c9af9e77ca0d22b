"""Hostile files, and honest ones beside them, all made here and none stored: data for test_hostile_files."""
