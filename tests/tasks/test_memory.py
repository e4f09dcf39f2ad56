"""A process that keeps freed memory does not ask the system for it again."""

import subprocess
import sys

import pytest

FAULTS = """
import ctypes, resource
from tasks.memory import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes, libc.memset.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    array = libc.malloc(64 << 20)
    libc.memset(array, 1, 64 << 20)
    libc.free(array)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
again = faults()
kept = keep_freed_memory()
faults()
print(again, int(kept), faults())
"""


def test_an_array_of_64_mb_costs_page_faults_only_once():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, timeout=60)
    again, kept, afterwards = map(int, done.stdout.split())
    if not kept:
        pytest.skip("the C library of this system has no such setting")
    assert again > 20, "each such array costs page faults as long as freed memory is returned"
    assert afterwards < again / 10
