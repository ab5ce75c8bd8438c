"""The child process that finds out whether a ledger's file is cut short, and may be killed by it.

    python -m sidecar.ledger.whole DIRECTORY

LMDB reads through a map, and whoever looks at a page that the file does not have is killed (SIGBUS). That a file is
shorter than its greatest page number says proves nothing: what a commit took and freed again it does not write. So this
process looks at every page in use. It ends with 0, or with anything else where one cannot be read.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from sidecar.ledger.store import touch_all


def main(arguments: list[str]) -> int:
    """Read everything; gives the exit code."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    touch_all(Path(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
