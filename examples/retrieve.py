"""Find the images of a folder that look most like a photo, by the pooled features of a network.

python examples/retrieve.py igcv3_d_100.imagenet photo.jpg photos
"""

from argparse import ArgumentParser
from pathlib import Path

import torch
from torch import Tensor

import igcv
from igcv.data import read_image
from igcv.data.formats import is_read


def features(classifier: igcv.Classifier, files: list[Path]) -> Tensor:
    """Return one unit vector per image, (N, num_features): the input of the classifier's last layer."""
    vectors = []
    for file in files:
        pixels = classifier.transform(read_image(file)).unsqueeze(0)
        with torch.inference_mode():
            maps = classifier.model.forward_features(pixels)
            vectors.append(classifier.model.forward_head(maps, pre_logits=True))
    return torch.nn.functional.normalize(torch.cat(vectors), dim=1)


parser = ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("network", help="run folder, weights file, or weights by name")
parser.add_argument("photo", type=Path, help="image to look for")
parser.add_argument("folder", type=Path, help="folder of images, with subfolders")
parser.add_argument("--top", type=int, default=5, help="number of images to list (default: 5)")
arguments = parser.parse_args()

classifier = igcv.load(arguments.network)
files = sorted(path for path in arguments.folder.rglob("*") if is_read(path.name))
similarity = features(classifier, files) @ features(classifier, [arguments.photo])[0]  # cosine, -1 to 1
for value, index in zip(*similarity.topk(min(arguments.top, len(files))), strict=True):
    print(f"{value:.3f}  {files[index]}")
