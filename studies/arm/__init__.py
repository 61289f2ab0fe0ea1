"""Study of exported files on ARM's kernels, under emulation: `python -m studies.arm --help`."""
