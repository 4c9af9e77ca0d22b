"""What all tests share."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))
# Keras takes one backend for the whole process, and TensorFlow unless told otherwise.
os.environ.setdefault("KERAS_BACKEND", "torch" if importlib.util.find_spec("torch") else "jax")

# Machines that run tests are shared: how long an example takes says nothing. The same examples each time, so that what fails is what a
# change broke; `--hypothesis-profile=explore` takes others.
settings.register_profile("tensorkeep", deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
settings.register_profile("explore", deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile("tensorkeep")
with suppress(ImportError):
    from hypothesis.internal.conjecture import providers

    if hasattr(providers, "_get_local_constants"):
        # It draws constants of the code that happens to be imported: of tensorkeep, which imports late, and so of which tests ran before.
        providers._get_local_constants = lambda: providers._local_constants


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bare", action="store_true", help="with every optional system call switched off, as on a system that has none")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--bare"):
        from tensorkeep.backends import capabilities

        capabilities.in_use = capabilities.NONE


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """A real S3 server, one for all tests of a process."""
    import servers

    with servers.moto() as url:
        yield url


@pytest.fixture(scope="session")
def localbucket_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Another, written by others."""
    import servers

    with servers.localbucket(tmp_path_factory.mktemp("localbucket")) as url:
        yield url
