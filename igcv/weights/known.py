"""Table of downloadable weights of other projects, by their names in igcv."""

from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from igcv.data.preprocessing import IMAGENET, MXNET, Preprocessing

BILINEAR = replace(IMAGENET, interpolation="bilinear")


@dataclass(frozen=True, kw_only=True)
class Known:
    """Weights file of another project.

    Attributes:
        url: URL of the file.
        checksum: KIND:DIGITS. sha1 and sha256 are checksums of the file, or of the only file in a .zip archive; git is
            the checksum of a git blob. For sha256, the first digits are enough: the projects publish eight.
        megabytes: approximate size in MB, 4 bytes per parameter.
        project: project of the tensor names: mxnet, pytorchcv, torchvision or timm.
        preprocessing: preprocessing of the project.
        license: license, as stated by the project.
        top1, top5: published accuracy on the 50,000 validation images of ImageNet, in percent.
        source: source of the accuracy.
    """

    url: str
    checksum: str
    megabytes: float
    project: str
    preprocessing: Preprocessing
    license: str
    top1: float
    top5: float
    source: str

    @property
    def file(self) -> str:
        """Name of the file."""
        return PurePosixPath(urlsplit(self.url).path).name

    @property
    def host(self) -> str:
        """Host of the file."""
        return urlsplit(self.url).netloc


def _pytorchcv(tag: str, file: str, sha1: str, megabytes: float, top1: float, top5: float) -> Known:
    return Known(
        url=f"https://github.com/osmr/imgclsmob/releases/download/{tag}/{file}.pth.zip",
        checksum=f"sha1:{sha1}",
        megabytes=megabytes,
        project="pytorchcv",
        preprocessing=BILINEAR,
        license="MIT",
        top1=top1,
        top5=top5,
        source="github.com/osmr/imgclsmob, pytorch/README.md",
    )


def _timm(file: str, megabytes: float, top1: float, top5: float) -> Known:
    return Known(
        url=f"https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/{file}.pth",
        checksum=f"sha256:{file[-8:]}",
        megabytes=megabytes,
        project="timm",
        preprocessing=IMAGENET,
        license="Apache-2.0",
        top1=top1,
        top5=top5,
        source="github.com/huggingface/pytorch-image-models, results/results-imagenet.csv",
    )


def _torchvision(file: str, resized: int, top1: float, top5: float) -> Known:
    return Known(
        url=f"https://download.pytorch.org/models/{file}.pth",
        checksum=f"sha256:{file[-8:]}",
        megabytes=14.0,
        project="torchvision",
        preprocessing=replace(BILINEAR, crop=224 / resized),
        license="BSD-3-Clause",
        top1=top1,
        top5=top5,
        source="torchvision.models.MobileNet_V2_Weights",
    )


_ORIGINAL = Known(
    url="https://raw.githubusercontent.com/homles11/IGCV3/83aba2f34702836cc1b82350163909034cd9b553/models/igcv3-0000.params",
    checksum="git:c4b0a995619676b526f41669d0fbff8886a79943",
    megabytes=14.0,
    project="mxnet",
    preprocessing=MXNET,
    license="none stated",
    top1=71.78,
    top5=90.46,
    source="github.com/osmr/imgclsmob, gluon/README.md, v0.0.126: this file, measured there",
)

KNOWN = {
    "igcv3_d_025.imagenet": _pytorchcv(
        "v0.0.142", "igcv3_wd4-2871-c9f28301", "c9f28301391601e5e8ae93139431a9e0d467317c", 6.1, 46.30, 71.29
    ),
    "igcv3_d_050.imagenet": _pytorchcv(
        "v0.0.132", "igcv3_wd2-1732-8c504f44", "8c504f443283d8a32787275b23771082fcaab61b", 7.9, 60.25, 82.68
    ),
    "igcv3_d_075.imagenet": _pytorchcv(
        "v0.0.207", "igcv3_w3d4-1140-63f43cf8", "63f43cf8d334111d55d06f2f9bf7e1e4871d162c", 10.6, 68.95, 88.60
    ),
    "igcv3_d_100.imagenet": _pytorchcv(
        "v0.0.243", "igcv3_w1-0920-12385791", "12385791681f09adb3a08926c95471f332f538b6", 14.0, 72.09, 90.80
    ),
    "igcv3_d_100.imagenet_original": _ORIGINAL,
    "mobilenetv2_050.imagenet": _timm("mobilenetv2_050-3d30d450", 7.9, 65.93, 86.11),
    "mobilenetv2_100.imagenet": _timm("mobilenetv2_100_ra-b33bc2c4", 14.0, 72.91, 91.00),
    "mobilenetv2_140.imagenet": _timm("mobilenetv2_140_ra-21a4e913", 24.5, 76.53, 93.01),
    "mobilenetv2_100.imagenet_torchvision": _torchvision("mobilenet_v2-b0353104", 256, 71.88, 90.29),
    "mobilenetv2_100.imagenet_torchvision_v2": _torchvision("mobilenet_v2-7ebf99e0", 232, 72.15, 90.82),
}
