"""Entry point of `python -m igcv`."""

from igcv.commands.main import main

main()
