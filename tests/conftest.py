"""For all tests: one thread, and no flushing to the disk.

The tensors are small, and threads that wait for each other take the time of others. Hundreds of small runs would wait
for the disk most of the time.
"""

import os
import signal
from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)

# A shell that starts the tests in the background lets them, and the programs that they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def without_flushing() -> Iterator[None]:
    """Let ``os.fsync`` do nothing in this process; what tests of it need, they patch themselves."""
    flush, os.fsync = os.fsync, lambda descriptor: None
    yield
    os.fsync = flush
