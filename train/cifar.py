"""``python -m train.cifar``: the program, whose command line is ``train.command_line``."""

import sys

from train.large_pages import restart_with_large_pages

if __name__ == "__main__":
    restart_with_large_pages("train.cifar")
    from train.command_line import main

    sys.exit(main())
