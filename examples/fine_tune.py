"""Fine-tune released weights on one folder of images per class: with igcv, then with timm and PyTorch.

    python examples/fine_tune.py photos

`igcv3_d_p50.cifar10` comes with igcv. `igcv3_d_100.imagenet` is the better start for photos and is downloaded once.
"""

from argparse import ArgumentParser

import timm
import torch
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.optim import param_groups_layer_decay
from torch.nn.functional import cross_entropy

import igcv

parser = ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("photos", help="folder with one folder of images per class")
parser.add_argument(
    "--weights", default="igcv3_d_p50.cifar10", help="weights by name (default: igcv3_d_p50.cifar10)"
)
parser.add_argument("--epochs", type=int, default=10, help="training epochs (default: 10)")
arguments = parser.parse_args()

# 1. With igcv: validation images, augmentation, learning rate and frozen epochs are chosen for you.
settings = {"data": f"folder:{arguments.photos}", "init_from": arguments.weights, "epochs": arguments.epochs}
run = igcv.train(out="runs/fine_tuned", **settings)
print(f"igcv: {run.summary['best_top1']:.1f} % of the validation images are right")

# 2. With timm: importing igcv registers its networks, and the loop is yours.
dataset = create_dataset("", root=arguments.photos)
classes = len(dataset.reader.class_to_idx)
model = timm.create_model(arguments.weights, pretrained=True, num_classes=classes)
config = resolve_data_config({}, model=model)  # input size and normalization of the weights
loader = create_loader(dataset, batch_size=8, is_training=True, use_prefetcher=False, num_workers=0, **config)
layers = param_groups_layer_decay(model, weight_decay=1e-4, layer_decay=0.8)
optimizer = torch.optim.SGD(layers, lr=0.01, momentum=0.9, nesterov=True)
for group in optimizer.param_groups:
    group["lr"] *= group["lr_scale"]  # early layers, which see edges and colors, change least

model.train()
for epoch in range(arguments.epochs):
    losses = []
    for batch, labels in loader:
        loss = cross_entropy(model(batch), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"timm: epoch {epoch + 1}, loss {sum(losses) / len(losses):.3f}")
