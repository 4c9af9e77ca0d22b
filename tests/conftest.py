"""What all tests share."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bare", action="store_true", help="with every optional system call switched off, as on a system that has none")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--bare"):
        from tensorkeep.backends import capabilities

        capabilities.in_use = capabilities.NONE
