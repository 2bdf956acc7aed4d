"""Embed a patch pair once, answer many prompts on it. NumPy in, NumPy out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..model.adapter import Adapter
from ..model.bases import Base
from ..model.card import PLAIN_ROUTES, Route, SecondPass
from ..prompts import PromptKind
from ..prompts.encoding import (
    CLAMP_LOGIT,
    EncodedPrompt,
    MaskArray,
    encode_box,
    mask_box,
    project_mask_to_hr,
    project_mask_to_lr,
)
from .backends import Backend, Embedding, Patch, Prediction

if TYPE_CHECKING:
    from .stored_patches import StoredPatches


class Predictor:
    """Answers prompts on patch pairs with the decoder that the adapter names for their kind.

    Args:
        backend: runs the base with the decoders of the adapter.
        base, adapter: the base and adapter that the backend has loaded.
        stored: patches that earlier runs encoded; None if nothing is kept on the disk.
    """

    def __init__(
        self,
        backend: Backend,
        base: Base,
        adapter: Adapter | None,
        stored: StoredPatches | None = None,
    ) -> None:
        self.backend = backend
        self.base = base
        self.adapter = adapter
        self.stored = stored
        self._routes = adapter.card.routes if adapter else PLAIN_ROUTES

    @property
    def hr_mpp(self) -> float:
        """µm per encoder pixel of the HR patch that the weights are best at."""
        return self.adapter.card.hr_mpp if self.adapter else 1.0

    @property
    def patch_count(self) -> int:
        """How many patches of a pair the decoders look at, at most."""
        return 2 if self.adapter is not None and self.adapter.reads_lr else 1

    def answers_with_lr(self, kind: PromptKind, *, fits_hr: bool) -> bool:
        """Whether the final answer to this kind of prompt comes from both patches."""
        if self.adapter is None:
            return False
        card = self.adapter.card.decoders[self._routes[kind].last_decoder]
        return card.count_patches(fits_hr=fits_hr) > 1

    def predict(
        self, embedding: Embedding, prompts: Sequence[EncodedPrompt]
    ) -> list[tuple[Prediction, ...]]:
        """Answer prompts of one patch pair, in their order.

        Returns:
            For each prompt the masks that its decoder answers with, the one with the highest
            predicted IoU first.
        """
        routes = [self._routes[prompt.kind] for prompt in prompts]
        answers = self._decode(
            embedding, [(r.decoder, p) for r, p in zip(routes, prompts, strict=True)]
        )
        again = {
            index: (route.last_decoder, encoded)
            for index, route in enumerate(routes)
            if (encoded := self._ask_again(route, prompts[index], answers[index])) is not None
        }
        for index, answer in zip(again, self._decode(embedding, list(again.values())), strict=True):
            if not answer[0].is_empty:  # else the first answer was the better one
                answers[index] = answer
        return answers

    def _ask_again(
        self, route: Route, prompt: EncodedPrompt, answers: Sequence[Prediction]
    ) -> EncodedPrompt | None:
        """Ask the follow-up questions to the first answers of a prompt, if any; the best first."""
        answer = answers[0]
        if route.second_pass is SecondPass.NONE or answer.is_empty:
            return None
        hr_mask, lr_mask = project_mask(answer.mask_logits, answer.patch)
        if route.second_pass is SecondPass.SELF_BOX:
            return encode_box(mask_box(hr_mask, self.base.size_px)) if (hr_mask > 0).any() else None
        if self._answers_each_patch(route.decoder):
            own = {each.patch: each.mask_logits for each in answers}
            hr_mask, lr_mask = own.get("hr", hr_mask), own.get("lr", lr_mask)
        hr_mask, lr_mask = (np.clip(m, -CLAMP_LOGIT, CLAMP_LOGIT) for m in (hr_mask, lr_mask))
        return replace(prompt, mask_input=hr_mask, lr_mask_input=lr_mask)

    def _answers_each_patch(self, decoder: str) -> bool:
        """Whether a decoder answers on each patch by itself, so that each refines its own mask."""
        return self.adapter is not None and self.adapter.card.decoders[decoder].both_patches

    def _decode(
        self, embedding: Embedding, work: Sequence[tuple[str, EncodedPrompt]]
    ) -> list[tuple[Prediction, ...]]:
        """Decode prompts in batches of the same form: padding would change the answers."""
        batches: dict[tuple[str, int, bool, bool], list[int]] = defaultdict(list)
        for index, (decoder, encoded) in enumerate(work):
            has_mask = encoded.mask_input is not None
            batches[decoder, len(encoded.point_labels), has_mask, encoded.fits_hr].append(index)
        answers: dict[int, tuple[Prediction, ...]] = {}
        for (decoder, *_), indices in batches.items():
            batch = [work[index][1] for index in indices]
            decoded = self.backend.decode(decoder, embedding, batch)
            answers |= zip(indices, (self._rank(decoder, masks) for masks in decoded), strict=True)
        return [answers[index] for index in range(len(work))]

    def _rank(self, decoder: str, predictions: tuple[Prediction, ...]) -> tuple[Prediction, ...]:
        """Sort a decoder's answers by predicted IoU; of equal ones the HR mask comes first."""
        if self.adapter is not None:
            card = self.adapter.card.decoders[decoder]
            predictions = tuple(p for p in predictions if card.may_answer(p.patch))
        return tuple(sorted(predictions, key=lambda prediction: -prediction.predicted_iou))


def project_mask(mask_logits: MaskArray, patch: Patch) -> tuple[MaskArray, MaskArray]:
    """Project mask logits over one patch of a pair onto both patches, HR first."""
    if patch == "hr":
        return mask_logits, project_mask_to_lr(mask_logits)
    return project_mask_to_hr(mask_logits), mask_logits
