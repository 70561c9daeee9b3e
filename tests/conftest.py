"""What every test starts from."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is imported: as many threads as cores in each process would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c() -> None:
    """Python's own handler: a shell that runs the suite in the background has SIGINT ignored, which
    the processes that tests start and interrupt would inherit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _no_store_of_the_user() -> Iterator[None]:
    """Whoever runs the suite may have a store of their own, which no test is to see."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DCLIP_STORE", raising=False)
        yield


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with tiny trained things, see ``small_store``: for ``copied``, not to write into."""
    from small_store import small_store  # torch

    return small_store(tmp_path_factory.mktemp("trained") / "store").root
