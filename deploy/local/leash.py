"""Runs a program that the kernel kills when its parent ends: PARENT_PID PROGRAM ARGUMENT…

It is a file of its own and not a hook after fork, which isn't safe in a process with threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the program. Elsewhere than on Linux the kernel doesn't watch its parent."""
    parent = int(sys.argv[1])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("The parent ended before its child began.")
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - a shell would come between


if __name__ == "__main__":
    main()
