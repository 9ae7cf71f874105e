"""`python -m tiny_transformer.capstone` is `tiny-transformer`."""

import gc
import signal


def main() -> None:
    """The command line. Ctrl-C ends it in silence even while PyTorch is imported, for seconds."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()  # PyTorch's modules stay: to look through them again and again takes 0.3 s
    from tiny_transformer.capstone.cli import main

    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGINT, before)
    main()


if __name__ == "__main__":
    main()
