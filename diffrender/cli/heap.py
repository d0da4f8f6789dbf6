"""Memory that large tensors leave is kept for the next ones.

By default glibc gives the pages of every large tensor back to the system, and gets them again for the next one, one by
one and filled with zeros: a sixth of the time of a fit. It is a setting of the whole process, so not the library's to
change, but a command's. It costs some memory: what is kept is not always where the next tensor fits.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
_LARGEST = 2**30  # bytes: what is larger comes and goes as before
_STEP = 2**28  # bytes by which the heap grows


def keep_freed_memory() -> None:
    """Ask the C library for it; nothing where that is another one than glibc."""
    if sys.platform != "linux":
        return
    setting = getattr(ctypes.CDLL(None), "mallopt", None)
    if setting is not None:
        for parameter, value in ((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, _STEP)):
            setting(parameter, value)
