"""A CPU's memory in large pages.

A dispatch takes its memory from the system and gives it back. In pages of 4 KiB, each of which is
handed out and later looked up by itself, that is a tenth of a training step and more
(docs/cpu.md). glibc asks for pages of 2 MiB if a variable says so when the program starts.
"""

import contextlib
import itertools
import os
import sys

NAME = "GLIBC_TUNABLES"
ENVIRONMENT = {NAME: "glibc.malloc.hugetlb=1"}


def restart_with_large_pages(module: str) -> None:
    """Start this program, ``python -m module``, again in this process, with ``ENVIRONMENT``.

    It goes on as it is on other systems than Linux, where the user has set the variable, and where
    the program was started in another way. To be called before anything slow.
    """
    started_so = ("-m", module) in itertools.pairwise(sys.orig_argv)
    if sys.platform != "linux" or NAME in os.environ or not started_so:
        return
    with contextlib.suppress(OSError):
        command = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, command, os.environ | ENVIRONMENT)
