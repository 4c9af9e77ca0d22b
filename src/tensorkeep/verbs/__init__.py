"""Verbs: one public action, one file. The same word in Python, on the command line, in the docs and in the tests."""
