"""What every test starts from."""

import signal

import pytest


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c() -> None:
    """Python's own handler: a shell that runs the suite in the background has SIGINT ignored, which
    the processes that tests start and interrupt would inherit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
