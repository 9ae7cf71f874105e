"""Single keys from the terminal, without waiting for Enter, on Unix and on Windows."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

if os.name == "nt":
    import msvcrt
else:
    import select
    import termios
    import tty


@contextmanager
def terminal() -> Iterator[None]:
    """Meanwhile a key is there as soon as it is pressed, and is not shown."""
    if os.name == "nt":
        os.system("")  # lets the console obey colors
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
    return pressed_on_windows() if os.name == "nt" else pressed_on_unix()


def pressed_on_unix() -> str:
    found = b""
    while select.select([sys.stdin], [], [], 0)[0]:
        more = os.read(sys.stdin.fileno(), 1024)
        if not more:
            return "q"  # the terminal is gone
        found += more
    return "" if found.startswith(b"\x1b") else found.decode(errors="ignore")


def pressed_on_windows() -> str:
    found = ""
    while msvcrt.kbhit():
        key = msvcrt.getwch()
        if key == "\3":
            raise KeyboardInterrupt
        if key in "\0\xe0":  # the first half of an arrow or a function key
            msvcrt.getwch()
        else:
            found += key
    return found
