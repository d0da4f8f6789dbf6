"""Memory that is kept: large tensors one after the other take the same pages."""

import platform
import subprocess
import sys

import pytest

MEASURE = """
import resource, sys
import torch
from diffrender.cli.heap import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(2**24)  # 64 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
keep_freed_memory()
faults()
print(before, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_pages_of_freed_tensors_are_not_given_back() -> None:
    said = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True).stdout
    before, after = map(int, said.split())
    assert before > 8 * 30  # pages of 4 KB, or of 2 MB
    assert after < before / 8
