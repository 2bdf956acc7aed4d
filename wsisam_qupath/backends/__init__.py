"""What runs the model: a :class:`Backend`. PyTorch and OpenVINO stand behind the same interface.

Importing this imports neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..tokens import MaskArray, Tokens

ImageArray: TypeAlias = NDArray[np.uint8]
"""A patch: S x S x 3 uint8 RGB."""


class Prediction(NamedTuple):
    """One answer: mask logits over the HR patch, and the decoder's estimate of its IoU."""

    mask_logits: MaskArray
    predicted_iou: float


@dataclass(frozen=True)
class Embedding:
    """Everything of a patch pair that no prompt changes, in the backend's own arrays.

    Attributes:
        hr, lr: the encoder's tokens, 1 x 4096 x 256; no ``lr`` where no decoder reads it.
        features: fused image features of each WSI-SAM decoder, by its name; the HR patch's, and
            behind them the LR patch's where the decoder mixes both.
        nbytes: what all that occupies.
    """

    hr: Any
    lr: Any
    features: Mapping[str, Any]
    nbytes: int


class Encoded(NamedTuple):
    """What the encoder makes of patches, in NumPy, for training and for looking at.

    Attributes:
        tokens: B x 4096 x 256 float32.
        early: B x C x 64 x 64 float32, the early features that WSI-SAM's fusion reads.
    """

    tokens: NDArray[np.float32]
    early: NDArray[np.float32]


class Encoder(Protocol):
    """Runs the encoder of a base."""

    @property
    def name(self) -> str:
        """Where and how it computes, for people: "OpenVINO on CPU, bf16"."""

    def encode(self, patches: Sequence[ImageArray]) -> Encoded:
        """Encode patches, and nothing more."""


class Backend(Encoder, Protocol):
    """Runs the encoder of a base and the decoders of an adapter. Not thread-safe."""

    @property
    def pairs_at_once(self) -> int:
        """How many patch pairs are best encoded in one call."""

    def embed(
        self, hr_patches: Sequence[ImageArray], lr_patches: Sequence[ImageArray]
    ) -> list[Embedding]:
        """Encode patch pairs; ``lr_patches`` is empty where no decoder reads them."""

    def decode(
        self, decoder: str, embedding: Embedding, prompts: Sequence[Tokens]
    ) -> list[Prediction]:
        """Answer prompts of one embedding: equally many tokens each, all or none with a mask."""
