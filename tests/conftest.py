"""For all tests: one thread, and no flushing to the disk.

The tensors are small, and threads that wait for each other take the time of others. Hundreds of small runs would wait
for the disk most of the time.
"""

import os
from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def without_flushing() -> Iterator[None]:
    """Let ``os.fsync`` do nothing in this process; what tests of it need, they patch themselves."""
    flush, os.fsync = os.fsync, lambda descriptor: None
    yield
    os.fsync = flush
