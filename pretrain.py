"""Pretrain a backbone: `accelerate launch pretrain.py RECIPE [key=value …]`, the same as `ssl-transfer pretrain …`."""

import sys

from ssl_transfer.cli import main

if __name__ == "__main__":
    sys.exit(main(["pretrain", *sys.argv[1:]]))
