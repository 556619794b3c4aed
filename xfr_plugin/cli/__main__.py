"""`python -m xfr_plugin.cli` is the command `xfr`."""

from xfr_plugin.cli.main import main

main()
