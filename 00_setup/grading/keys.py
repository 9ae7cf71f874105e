"""Single keys from the terminal, without waiting for Enter, on Unix and on Windows."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

try:
    import msvcrt
except ImportError:
    import select
    import termios
    import tty


@contextmanager
def terminal() -> Iterator[None]:
    """Meanwhile a key is there as soon as it is pressed, and is not shown."""
    if "termios" not in globals():
        os.system("")  # lets a Windows console obey colors
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def pressed() -> str:
    """The keys that have been pressed since; those that send several characters do not count."""
    if "termios" not in globals():
        found = ""
        while msvcrt.kbhit():
            key = msvcrt.getwch()
            if key in "\0\xe0":  # the first half of an arrow or a function key
                msvcrt.getwch()
            elif key == "\3":
                raise KeyboardInterrupt
            else:
                found += key
        return found
    found = b""
    while select.select([sys.stdin], [], [], 0)[0]:
        more = os.read(sys.stdin.fileno(), 1024)
        if not more:
            return "q"  # the terminal is gone
        found += more
    return "" if found.startswith(b"\x1b") else found.decode(errors="ignore")
