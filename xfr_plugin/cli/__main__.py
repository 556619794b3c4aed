"""`python -m xfr_plugin.cli` is the command `xfr`."""

from __future__ import annotations

import sys
import traceback

from xfr_plugin.cli.codes import EXIT_FAILED, EXIT_STOPPED

__all__ = ["main"]


def main() -> None:
    """Run the command line; what cannot even be imported is no decision either."""
    try:
        from xfr_plugin.cli.xfr import app
    except KeyboardInterrupt:
        sys.exit(EXIT_STOPPED)
    except BaseException:
        traceback.print_exc()
        sys.exit(EXIT_FAILED)
    app()


if __name__ == "__main__":
    main()
