"""Networks by name, with fresh weights or with released ones."""

from typing import Any

from igcv import models
from igcv.classifier import fill
from igcv.models import Network
from igcv.weights import find_released, load_weights


def create_model(
    name: str,
    num_classes: int | None = None,
    multiplier: float | None = None,
    input_size: int | None = None,
    *,
    pretrained: bool = False,
    **options: Any,
) -> Network:
    """Build a network by name.

    Args:
        name: a name of the catalog (see `igcv.models.create_model`); with `pretrained` also NETWORK.DATA, the name of
            released weights (`igcv.weights.released_weights`). Of several releases of NETWORK the first of imagenet,
            tinyimagenet, cifar100, cifar10 and digits is the default.
        num_classes: outputs; 0 returns pooled features. None: 1000, or those of the released weights. Another number
            than theirs gives a new classifier, for fine-tuning.
        multiplier: width multiplier, instead of the one in the name; not with `pretrained`.
        input_size: side in pixels of the square images to come; None: the network's own, or the weights'.
        pretrained: fill it with released weights; nothing is downloaded.
        options: `in_chans`, `global_pool`, `drop_rate`, `strides` (see `igcv.models.Options`). With `pretrained`, at
            the input size of the weights, strides are theirs unless given.

    Raises:
        InputError: for an unknown name, numbers that make no network, or weights that were not released.

    >>> create_model("igcv3_d_100", num_classes=10).num_features
    1280
    """
    if not pretrained:
        return models.create_model(
            name, 1000 if num_classes is None else num_classes, multiplier, input_size, **options
        )
    file = find_released(name)
    tensors, card = load_weights(file)
    width = card.multiplier if multiplier is None else multiplier
    size = input_size or card.input_size
    if size == card.input_size:
        options = {"strides": card.strides or None, **options}
    network = models.create_model(card.model, card.num_classes, width, size, **options)
    fill(network, tensors, str(file))
    if num_classes is not None and num_classes != card.num_classes:
        network.reset_classifier(num_classes)
    return network
