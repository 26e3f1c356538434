"""Freed memory is used again, also in a process that Dask started."""

import os
import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys
import numpy as np
from sam2_fewshot.backbones.sam2.cpu import reuse_memory

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def work():
    before = pages()
    for _ in range(20):
        np.full(500_000, 1.0, np.float32)  # 2 MB, 500 pages; of 4 MB on NumPy asks for huge ones
    return pages() - before

work()
fresh = work()
taken = reuse_memory()
work()
print(int(taken), fresh, work())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have another allocator")
def test_memory_is_used_again_where_dask_turned_that_off() -> None:
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}
    run = subprocess.run([sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, check=True)
    taken, fresh, again = map(int, run.stdout.split())
    if not taken:
        pytest.skip("the C library is not glibc")
    assert fresh > 5_000
    assert again < 500


def test_a_library_without_the_setting_is_left_alone() -> None:
    from sam2_fewshot.backbones.sam2.cpu import reuse_memory

    assert not reuse_memory(library=object())
