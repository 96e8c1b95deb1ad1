from __future__ import annotations

import sys

import pytest

from tests.launching import run, shown

# Pages that were mapped while large blocks were taken and given back, one at a time.
_FAULTS = """
import resource, sys
import torch
from Utils.core.device import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(10):  # the heap grows by its padding, 256 MB, before it gives blocks again
    torch.zeros(16 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.zeros(16 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_used_again() -> None:

    def count(how: str) -> int:
        done = run(["-c", _FAULTS, how])
        assert done.returncode == 0, shown(done)
        return int(done.stdout)

    faults = {how: count(how) for how in ("keep", "as it comes")}
    # As it comes each of the 20 blocks is mapped anew.
    assert faults["keep"] < 0.2 * faults["as it comes"]
