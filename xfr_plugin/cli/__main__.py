"""`python -m xfr_plugin.cli` is the command `xfr`."""

from xfr_plugin.cli.xfr import main

main()
