"""python -m igcv."""

from igcv.cli import main

main()
