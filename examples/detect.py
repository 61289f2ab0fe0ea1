"""Train SSDLite of torchvision on an IGCV3 backbone, on drawn shapes, and show what it finds.

    python examples/detect.py --network igcv3_d_050.imagenet

Replace `Shapes` with a data set of your own that returns the same kind of images and targets.
"""

from argparse import ArgumentParser
from collections import OrderedDict
from itertools import pairwise

import timm
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import Conv2dNormActivation, box_iou

import igcv  # noqa: F401 - registers the networks with timm


class Shapes(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Bright (label 1) or dark (label 2) rectangles on noise, one per image."""

    def __init__(self, images: int, side: int) -> None:
        self.images, self.side = images, side

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        chance = torch.Generator().manual_seed(index)
        width, height, left, top = (torch.rand(4, generator=chance) * 0.4 * self.side).int().tolist()
        box = [left, top, left + width + self.side // 5, top + height + self.side // 5]
        image = 0.3 + 0.4 * torch.rand(3, self.side, self.side, generator=chance)
        image[:, box[1] : box[3], box[0] : box[2]] = 1 - index % 2
        return image, {
            "boxes": torch.tensor([box], dtype=torch.float),
            "labels": torch.tensor([1 + index % 2]),
        }


class Levels(nn.Module):
    """Feature maps of a network at strides 16 and 32, and of four smaller levels after them."""

    def __init__(self, network: str) -> None:
        super().__init__()
        self.body = timm.create_model(
            network, pretrained="." in network, features_only=True, out_indices=(3, 4)
        )
        self.out_channels = [*self.body.feature_info.channels(), 512, 256, 256, 128]
        self.extra = nn.ModuleList(halved(a, b) for a, b in pairwise(self.out_channels[1:]))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        levels = self.body(images)
        for layers in self.extra:
            levels.append(layers(levels[-1]))
        return OrderedDict((str(i), level) for i, level in enumerate(levels))


def halved(channels: int, out_channels: int) -> nn.Sequential:
    """Return the extra layers of SSDLite: (N, channels, H, W) -> (N, out_channels, H / 2, W / 2)."""
    middle, relu6 = out_channels // 2, nn.ReLU6
    return nn.Sequential(
        Conv2dNormActivation(channels, middle, 1, activation_layer=relu6),
        Conv2dNormActivation(middle, middle, 3, stride=2, groups=middle, activation_layer=relu6),
        Conv2dNormActivation(middle, out_channels, 1, activation_layer=relu6),
    )


def ssdlite(network: str, num_classes: int, side: int) -> SSD:
    """Return a detector; class 0 is the background."""
    levels = Levels(network)
    boxes = DefaultBoxGenerator([[2, 3]] * len(levels.out_channels), min_ratio=0.2, max_ratio=0.95)
    head = SSDLiteHead(levels.out_channels, boxes.num_anchors_per_location(), num_classes, nn.BatchNorm2d)
    config = levels.body.pretrained_cfg
    images = {"image_mean": list(config["mean"]), "image_std": list(config["std"])}
    return SSD(levels, boxes, (side, side), num_classes, head=head, **images)


parser = ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument(
    "--network", default="igcv3_d_050", help="backbone, or weights by name (igcv3_d_050.imagenet)"
)
parser.add_argument("--side", type=int, default=320, help="side of the images in pixels (default: 320)")
parser.add_argument("--steps", type=int, default=100, help="training steps (default: 100)")
arguments = parser.parse_args()

torch.manual_seed(0)
detector = ssdlite(arguments.network, num_classes=3, side=arguments.side).train()
optimizer = torch.optim.SGD(detector.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
shapes = Shapes(8 * arguments.steps, arguments.side)
loader = DataLoader(shapes, batch_size=8, collate_fn=lambda pairs: tuple(zip(*pairs, strict=True)))
for step, (images, targets) in enumerate(loader, start=1):
    losses = detector(images, targets)
    loss = losses["classification"] + losses["bbox_regression"]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % max(1, arguments.steps // 10) == 0:
        print(f"step {step}: loss {loss.item():.3f}")

image, target = Shapes(10**6, arguments.side)[10**6 - 1]
with torch.inference_mode():
    found = detector.eval()([image])[0]
overlap = box_iou(found["boxes"][:1], target["boxes"]).item()
print(
    f"found label {found['labels'][0]} with score {found['scores'][0]:.2f}, true label {target['labels'][0]}"
)
print(f"intersection over union with the true box: {overlap:.2f}")
