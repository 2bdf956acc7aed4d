"""What runs the model: a :class:`Backend`. PyTorch and OpenVINO stand behind the same interface.

Importing this imports neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...options import Precision
from ...prompts.encoding import EncodedPrompt, MaskArray

ImageArray: TypeAlias = NDArray[np.uint8]
"""Pixels of a patch, S x S x 3 uint8 RGB."""

Patch: TypeAlias = Literal["hr", "lr"]
"""One of the two patches of a pair."""

PatchSource: TypeAlias = "ImageArray | EncodedPatch"
"""Pixels of a patch, or the encoding that was made of them before."""

Patches: TypeAlias = "tuple[PatchSource, ...]"
"""The HR patch of a pair and, where a decoder reads it, the LR patch."""


class Prediction(NamedTuple):
    """One mask of an answer.

    Attributes:
        mask_logits: 256 x 256, over the patch.
        predicted_iou: the decoder's estimate of the mask's IoU with the whole object.
        patch: which patch of the pair the mask covers.
    """

    mask_logits: MaskArray
    predicted_iou: float
    patch: Patch = "hr"

    @property
    def is_empty(self) -> bool:
        """Whether the decoder sees no object on the patch."""
        return not (self.mask_logits > 0).any()


def pack_predictions(
    logits: NDArray[np.float32], ious: NDArray[np.float32]
) -> tuple[Prediction, ...]:
    """Pack one prompt's masks, R x 256 x 256 and R, each with the patch that it covers."""
    patches: tuple[Patch, ...] = ("hr", "lr")
    return tuple(
        Prediction(mask, float(iou), patch)
        for mask, iou, patch in zip(logits, ious, patches, strict=False)
    )


class EncodedPatch(NamedTuple):
    """What the encoder makes of one patch, in the backend's own arrays.

    Attributes:
        tokens: image embedding, 1 x 4096 x 256.
        early: early features that WSI-SAM's fusion reads, 1 x C x 64 x 64.
    """

    tokens: Any
    early: Any


@dataclass(frozen=True)
class Embedding:
    """Everything of a patch pair that no prompt changes, in the backend's own arrays.

    Attributes:
        patches: the HR patch and, if it was asked for, the LR patch.
        features: fused image features of each patch, 1 x 256 x 256 x 32, by the name of the WSI-SAM
            decoder that reads them; none for a decoder that reads more patches than there are.
        nbytes: memory that all of it occupies.
    """

    patches: tuple[EncodedPatch, ...]
    features: Mapping[str, tuple[Any, ...]]
    nbytes: int


class Encoded(NamedTuple):
    """What the encoder makes of patches, in NumPy, for training and for looking at.

    Attributes:
        tokens: image embeddings, B x 4096 x 256 float32.
        early: early features that WSI-SAM's fusion reads, B x C x 64 x 64 float32.
    """

    tokens: NDArray[np.float32]
    early: NDArray[np.float32]


class Encoder(Protocol):
    """Runs the encoder of a base."""

    @property
    def name(self) -> str:
        """Where and how the encoder computes, for people: "OpenVINO on CPU, bf16"."""

    def encode(self, patches: Sequence[ImageArray]) -> Encoded:
        """Encode patches, without preparing them for a decoder."""


class Backend(Encoder, Protocol):
    """Runs the encoder of a base and the decoders of an adapter. Not thread-safe."""

    @property
    def precision(self) -> Precision:
        """Numbers that the encoder computes in; bf16 is any short float that the device has."""

    @property
    def pairs_at_once(self) -> int:
        """How many patch pairs are best encoded in one call."""

    def embed(self, pairs: Sequence[Sequence[PatchSource]]) -> list[Embedding]:
        """Encode patch pairs: the HR patch of each and, where a decoder reads it, the LR patch.

        A patch that was encoded before is taken as it is.
        """

    def take(self, encoded: Encoded) -> EncodedPatch:
        """Take over one patch that was encoded before. May be called from any thread."""

    def decode(
        self, decoder: str, embedding: Embedding, prompts: Sequence[EncodedPrompt]
    ) -> list[tuple[Prediction, ...]]:
        """Answer prompts of one embedding that are alike in form.

        They have equally many tokens, and all or none a mask, and all or none ``fits_hr``.

        Returns:
            For each prompt the masks over the patches that the decoder reads for it, HR first.
        """

    def read_tokens(self, patch: EncodedPatch) -> NDArray[np.float32]:
        """Read what the encoder found at each place of a patch, 4096 x 256, row by row."""
