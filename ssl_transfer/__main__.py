"""`python -m ssl_transfer VERB …` is `ssl-transfer VERB …`."""

import sys

from ssl_transfer.cli import main

if __name__ == "__main__":
    sys.exit(main())
