"""What the C library does with freed memory, which decides half the speed of training on a CPU."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt's names (malloc.h)
LARGEST = 2**31 - 1  # bytes; the largest value of an int


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks for the next tensor instead of giving them back to the system.

    By default it maps every block above 32 MiB afresh and unmaps it when it is freed, so that each large
    activation of each step is faulted in page by page. The process then holds on to its peak memory.

    Returns:
        Whether it could be done; False where the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return all(libc.mallopt(option, LARGEST) == 1 for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))
