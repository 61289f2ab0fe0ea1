"""Train Unet or DeepLabV3+ of segmentation_models_pytorch on an IGCV3 encoder, on drawn shapes.

    pip install segmentation-models-pytorch
    python examples/segment.py --architecture DeepLabV3Plus

Replace `shapes` with batches of your own images and masks.
"""

from argparse import ArgumentParser

import segmentation_models_pytorch as smp
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import igcv  # noqa: F401 - registers the networks with timm


def shapes(images: int, side: int) -> tuple[Tensor, Tensor]:
    """Return images with one bright disk each, (N, 3, S, S), and masks: 1 on the disk, 0 elsewhere, (N, S, S)."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    center = side * (0.25 + 0.5 * torch.rand(images, 2, 1, 1))
    radius = side * (0.1 + 0.1 * torch.rand(images, 1, 1))
    masks = ((rows - center[:, 0]) ** 2 + (columns - center[:, 1]) ** 2 < radius**2).long()
    return torch.randn(images, 3, side, side) + 2 * masks[:, None], masks


def overlap(predicted: Tensor, masks: Tensor) -> float:
    """Return the intersection over union of class 1."""
    return float((predicted & masks).sum() / (predicted | masks).sum().clamp(min=1))


parser = ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--architecture", default="Unet", help="Unet, DeepLabV3Plus, FPN, ... (default: Unet)")
parser.add_argument("--network", default="igcv3_d_050", help="encoder (default: igcv3_d_050)")
parser.add_argument("--pretrained", action="store_true", help="start from trained weights of the encoder")
parser.add_argument("--side", type=int, default=224, help="side of the images in pixels (default: 224)")
parser.add_argument("--steps", type=int, default=100, help="training steps (default: 100)")
arguments = parser.parse_args()

torch.manual_seed(0)
model = smp.create_model(
    arguments.architecture,
    encoder_name=f"tu-{arguments.network}",
    encoder_weights="imagenet" if arguments.pretrained else None,
    classes=2,
)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
for step in range(1, arguments.steps + 1):
    images, masks = shapes(8, arguments.side)
    loss = cross_entropy(model(images), masks)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % max(1, arguments.steps // 10) == 0:
        print(f"step {step}: loss {loss.item():.3f}")

images, masks = shapes(8, arguments.side)
with torch.inference_mode():
    predicted = model.eval()(images).argmax(1)
print(f"intersection over union with the true masks: {overlap(predicted, masks):.2f}")
