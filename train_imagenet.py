"""Command line of the original MXNet project, translated to `igcv train`.

python train_imagenet.py --network=IGCV3 --multiplier=1.0 --gpus=0,1,2,3,4,5,6,7 --batch-size=96 --data-dir=DIR
"""

import argparse
import sys
from pathlib import Path

from igcv.commands.main import main
from igcv.errors import InputError, unknown

NETWORKS = {  # name in the original project -> catalog name
    "igcv3": "igcv3_d",
    "igcv3_wider": "igcv3_w",
    "igcv3_g2g4": "igcv3_g2g4",
    "mobilenetv2": "mobilenetv2_mxnet",
}
SETTINGS = {  # option of the original project -> recipe key
    "batch_size": "batch_size",
    "num_epochs": "epochs",
    "lr": "lr",
    "lr_factor": "lr_factor",
    "wd": "weight_decay",
    "mom": "momentum",
    "data_nthreads": "workers",
    "multiplier": "multiplier",
}


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the supported options of the original command line."""
    parser = argparse.ArgumentParser(
        description="Train on ImageNet with the command line of the original MXNet project."
    )
    parser.add_argument("--network", default="IGCV3", help="IGCV3, igcv3_wider, igcv3_g2g4 or mobilenetv2")
    parser.add_argument("--multiplier", type=float, default=1.0, help="width multiplier")
    parser.add_argument(
        "--gpus",
        default="",
        help="GPU numbers, e.g. 0,1,2,3 (default: one GPU if available, otherwise the CPU)",
    )
    parser.add_argument("--batch-size", type=int, default=96, help="images per step over all GPUs (96)")
    parser.add_argument(
        "--data-dir", help="folder with .rec files, or with train/ and val/ with one folder per class"
    )
    parser.add_argument("--data-train", help="training .rec file, instead of --data-dir")
    parser.add_argument("--data-val", help="validation .rec file, instead of --data-dir")
    parser.add_argument("--num-epochs", type=int, help="number of epochs (480)")
    parser.add_argument("--lr", type=float, help="learning rate (0.045)")
    parser.add_argument("--lr-factor", type=float, help="learning rate factor per epoch (0.98)")
    parser.add_argument("--wd", type=float, help="weight decay (4e-5)")
    parser.add_argument("--mom", type=float, help="momentum (0.9)")
    parser.add_argument("--data-nthreads", type=int, help="data-loading workers per GPU")
    parser.add_argument("--model-prefix", default="models/igcv3", help="run folder (models/igcv3)")
    parser.add_argument("--load-epoch", type=int, help="resume the run in --model-prefix (any number)")
    return parser.parse_args(arguments)


def data_spec(options: argparse.Namespace) -> str:
    """Return the --data spec of igcv for the data options."""
    if options.data_train:
        return f"rec:{options.data_train}" + (f",{options.data_val}" if options.data_val else "")
    if not options.data_dir:
        raise InputError(
            "--data-dir: no data given. Add --data-dir=DIR with .rec files, or with train/ and val/ folders."
        )
    folder = Path(options.data_dir)
    records = {part: sorted(folder.glob(f"*{part}*.rec")) for part in ("train", "val")}
    if records["train"] and records["val"]:
        return f"rec:{records['train'][0]},{records['val'][0]}"
    return f"folder:{folder}"


def translate(arguments: list[str]) -> list[str]:
    """Return the equivalent arguments of `igcv train`."""
    options = parse(arguments)
    network = NETWORKS.get(options.network.lower())
    if network is None:
        raise unknown("network", options.network, NETWORKS)
    recipe = Path(__file__).parent / "recipes" / "imagenet_mxnet.toml"
    command = [
        "train",
        str(recipe),
        f"--model={network}",
        f"--data={data_spec(options)}",
        f"--out={options.model_prefix}",
    ]
    command += [f"--gpus={options.gpus}"] if options.gpus else []
    command += ["--resume"] if options.load_epoch is not None else []
    given = ((key, getattr(options, option)) for option, key in SETTINGS.items())
    return command + [f"{key}={value}" for key, value in given if value is not None]


if __name__ == "__main__":
    try:
        sys.argv = ["igcv", *translate(sys.argv[1:])]
    except InputError as error:
        print(f"train_imagenet.py: {error}", file=sys.stderr)
        sys.exit(2)
    main()
