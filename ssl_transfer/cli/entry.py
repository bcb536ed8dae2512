"""The entry point: runs one verb and prints its answer."""

from __future__ import annotations

import json
import sys
import traceback

from ssl_transfer.cli.parser import parse
from ssl_transfer.cli.verbs import VERBS
from ssl_transfer.console import is_main_process, say
from ssl_transfer.errors import Interrupted, SslTransferError, UsageError


def main(words: list[str] | None = None) -> int:
    """Run one verb.

    Args:
        words: Name and arguments of the verb; None: the arguments of the process.

    Returns:
        Exit status: 0 done, 2 the input is wrong, 143 stopped by SIGTERM with a checkpoint, 1 anything else.
    """
    try:
        options = parse(sys.argv[1:] if words is None else words, VERBS)
        if (out := getattr(options, "out", None)) and out.is_file():
            raise UsageError(f"--out {out}: this is a file, expected a folder. Give another --out.")
        answer = VERBS[options.verb].run(options)
    except SslTransferError as error:
        if is_main_process():
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except Interrupted as interruption:
        say(str(interruption))
        return 143
    except KeyboardInterrupt:
        return 130
    except Exception:
        traceback.print_exc()
        return 1
    if is_main_process():
        print(json.dumps(answer, default=str) if options.json else VERBS[options.verb].as_text(answer))
    return 0
