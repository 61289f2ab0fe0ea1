"""Convert an MXNet checkpoint of IGCV1, IGCV3 or MobileNetV2 to safetensors, and back.

    python examples/convert_mxnet.py igcv3-0000.params --symbol igcv3-symbol.json

MXNet is not needed. The network is recognized from the names and shapes of its tensors.
"""

from argparse import ArgumentParser
from pathlib import Path

import igcv

parser = ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("params", type=Path, help="checkpoint, NAME-0000.params")
parser.add_argument("--symbol", help="NAME-symbol.json: compare the graph with igcv's network")
arguments = parser.parse_args()

weights = arguments.params.with_name("converted.safetensors")
classifier = igcv.convert(arguments.params, weights, symbol=arguments.symbol, force=True)
print(f"{weights}: {classifier.card.model}, {classifier.card.num_classes} classes")

back = arguments.params.with_name("back-0000.params")
igcv.convert(weights, back, force=True)
same = back.read_bytes() == arguments.params.read_bytes()
print(f"{back}: {'the same bytes as' if same else 'not the same bytes as'} {arguments.params}")
