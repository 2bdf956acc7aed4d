"""Embed a patch pair once, answer many prompts on it. NumPy in, NumPy out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .backends import Backend, Embedding, ImageArray, Prediction
from .model.adapter import Adapter
from .model.bases import Base
from .model.card import PLAIN_ROUTES, Route, SecondPass
from .prompts import PromptKind
from .tokens import CLAMP_LOGIT, Tokens, box_tokens, lr_mask_of, mask_box


class Predictor:
    """Answers prompts on patch pairs with the decoder that the adapter names for their kind.

    Args:
        backend: runs the base with the decoders of the adapter.
        base, adapter: what was loaded into it.
    """

    def __init__(self, backend: Backend, base: Base, adapter: Adapter | None) -> None:
        self.backend = backend
        self.base = base
        self.adapter = adapter
        self._routes = adapter.card.routes if adapter else PLAIN_ROUTES

    @property
    def hr_mpp(self) -> float:
        """µm per encoder pixel of the HR patch that the weights are best at."""
        return self.adapter.card.hr_mpp if self.adapter else 1.0

    @property
    def reads_lr(self) -> bool:
        """Whether any decoder looks at the LR patch."""
        return self.adapter is not None and self.adapter.reads_lr

    def answers_with_lr(self, kind: PromptKind) -> bool:
        """Whether the final answer to this kind of prompt comes from both patches."""
        if self.adapter is None:
            return False
        return self.adapter.card.decoders[self._routes[kind].last_decoder].reads_lr

    def embed(
        self, hr_patches: Sequence[ImageArray], lr_patches: Sequence[ImageArray]
    ) -> list[Embedding]:
        """Encode patch pairs, S x S x 3 uint8 RGB each; ``lr_patches`` empty if not read."""
        return self.backend.embed(hr_patches, lr_patches)

    def predict(self, embedding: Embedding, prompts: Sequence[Tokens]) -> list[Prediction]:
        """Answer prompts of one patch pair, in their order."""
        routes = [self._routes[prompt.kind] for prompt in prompts]
        answers = self._decode(
            embedding, [(r.decoder, p) for r, p in zip(routes, prompts, strict=True)]
        )
        again = {
            index: (route.last_decoder, tokens)
            for index, route in enumerate(routes)
            if (tokens := self._second(route, prompts[index], answers[index])) is not None
        }
        for index, answer in zip(again, self._decode(embedding, list(again.values())), strict=True):
            if (answer.mask_logits > 0).any():  # else the first answer was the better one
                answers[index] = answer
        return answers

    def _second(self, route: Route, prompt: Tokens, answer: Prediction) -> Tokens | None:
        """What is asked after a first answer, if anything."""
        if route.second_pass is SecondPass.NONE or not (answer.mask_logits > 0).any():
            return None
        if route.second_pass is SecondPass.SELF_BOX:
            return box_tokens(mask_box(answer.mask_logits, self.base.size_px))
        hr_mask = np.clip(answer.mask_logits, -CLAMP_LOGIT, CLAMP_LOGIT)
        return replace(prompt, hr_mask=hr_mask, lr_mask=lr_mask_of(hr_mask))

    def _decode(self, embedding: Embedding, work: Sequence[tuple[str, Tokens]]) -> list[Prediction]:
        """Batch what may run together: padding to equal length would change the answers."""
        batches: dict[tuple[str, int, bool], list[int]] = defaultdict(list)
        for index, (decoder, tokens) in enumerate(work):
            batches[decoder, len(tokens.labels), tokens.hr_mask is not None].append(index)
        answers: dict[int, Prediction] = {}
        for (decoder, _, _), indices in batches.items():
            batch = [work[index][1] for index in indices]
            answers |= zip(indices, self.backend.decode(decoder, embedding, batch), strict=True)
        return [answers[index] for index in range(len(work))]
