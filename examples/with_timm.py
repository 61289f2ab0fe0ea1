"""Run a script of timm with the networks of igcv: python examples/with_timm.py train.py PHOTOS --model igcv3_d_050"""

import runpy
import sys

import igcv  # noqa: F401 - registers the networks with timm

sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
