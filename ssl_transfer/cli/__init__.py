"""The command line: `ssl-transfer VERB …`, one file per verb."""

from ssl_transfer.cli.entry import main

__all__ = ["main"]
