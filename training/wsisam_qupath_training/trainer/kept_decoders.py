"""Decoders of an adapter under which an image encoder learns, while they stay as they are."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from wsisam_qupath.model.build import Networks
from wsisam_qupath.model.card import Route
from wsisam_qupath.model.decoders import SamDecoder
from wsisam_qupath.model.prompted_sam import fold_image_attention
from wsisam_qupath.prompts import PromptKind

from ..sampling.prompt_sampling import PromptBatch


class KeptDecoders(nn.Module):
    """Decoders of SAM's architecture, none of which learns, and the kinds that each answers.

    Args:
        networks: the decoders of an adapter.
        routes: which of them answers a kind of prompt.
    """

    def __init__(self, networks: Networks, routes: Mapping[PromptKind, Route]) -> None:
        super().__init__()
        names = list(networks.decoders)
        self.decoders = nn.ModuleList(networks.decoders.values())
        for decoder in self.decoders:
            fold_image_attention(decoder)
        self._places = {kind: names.index(route.last_decoder) for kind, route in routes.items()}
        self.requires_grad_(False)

    def choose(self, prompts: PromptBatch) -> SamDecoder:
        """Choose the decoder that answers these prompts."""
        decoder = self.decoders[self._places[find_kind(prompts)]]
        assert isinstance(decoder, SamDecoder)
        return decoder


def find_kind(prompts: PromptBatch) -> PromptKind:
    """Find the kind that prompts have in use; an answer that came back does not change it."""
    n_points = prompts.points.shape[1]
    if n_points == 0:
        return PromptKind.BOX if prompts.hr_masks is None else PromptKind.OUTLINE
    if prompts.boxes is not None:
        return PromptKind.BOX_POINTS
    return PromptKind.POINT if n_points == 1 else PromptKind.POINTS
