"""A base with its adapter: what decides the patches of a prompt and the id of its result."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..geometry import Mpp, PatchPair
from ..model.adapter import Adapter
from ..model.bases import Base
from ..options import OutlineOptions, Precision
from ..prompts import Prompt, PromptKind
from ..prompts.planner import Planner
from ..prompts.results import ANSWERS, Scalar, compute_result_id


@dataclass(frozen=True)
class ChosenModel:
    """A base with an adapter, or alone. It need not be loaded.

    Attributes:
        adapter: the adapter; None is the base alone.
        precision: numbers that the encoder computes in.
    """

    base: Base
    adapter: Adapter | None
    precision: Precision = field(default="bf16", kw_only=True)

    def planner(self, mpp: Mpp, options: OutlineOptions) -> Planner:
        """Choose the patch pairs of prompts on a slide.

        Args:
            mpp: pixel size of the slide's level 0.
        """
        if self.adapter is None:
            return Planner(mpp, self.base.size_px, object_size_um=options.object_size_um)
        hr_mpp = self.adapter.card.hr_mpp
        return Planner(mpp, self.base.size_px, hr_mpp, options.object_size_um)

    def count_patches(self, kind: PromptKind, *, fits_hr: bool) -> int:
        """Count the patches of a pair that the decoders look at for a kind of prompt.

        Args:
            fits_hr: see :meth:`.Planner.fits_hr`.
        """
        if self.adapter is None:
            return 1
        card = self.adapter.card
        route = card.routes[kind]
        names = (route.decoder, route.last_decoder)
        return max(card.decoders[name].count_patches(fits_hr=fits_hr) for name in names)

    def plan_patches(self, planner: Planner, prompts: Iterable[Prompt]) -> dict[PatchPair, int]:
        """Count how many patches, 1 (HR alone) or 2, of which pairs prompts first need."""
        counts: dict[PatchPair, int] = {}
        for prompt in prompts:
            pair = planner.pair(prompt)
            count = self.count_patches(prompt.kind, fits_hr=planner.fits_hr(prompt, pair))
            counts[pair] = max(counts.get(pair, 1), count)
        return counts

    def predict_result_id(self, prompt: Prompt, mpp: Mpp, options: OutlineOptions) -> str:
        """Compute the id that the result of a prompt will have, before the result exists.

        Args:
            mpp: pixel size of the slide's level 0.
        """
        return self.list_result_ids(prompt, mpp, options)[0]

    def list_result_ids(self, prompt: Prompt, mpp: Mpp, options: OutlineOptions) -> tuple[str, ...]:
        """List the id that the result of a prompt will have, and those of outdated results.

        Args:
            mpp: pixel size of the slide's level 0.

        Returns:
            One for each version of the answers, the newest first; then the same of an encoder in
            int8 for one in floats, and the other way round. Floats differ among each other by no
            more than chips do, and share their ids.
        """
        settings: dict[str, Scalar] = {
            **options.outline_settings,
            "mpp_x": mpp.x,
            "mpp_y": mpp.y,
        }
        of_int8 = {**settings, "precision": "int8"}
        ordered = (of_int8, settings) if self.precision == "int8" else (settings, of_int8)
        adapter_sha256 = self.adapter.sha256 if self.adapter else None
        return tuple(
            compute_result_id(prompt, self.base.sha256, adapter_sha256, one, answers=answers)
            for one in ordered
            for answers in range(ANSWERS, 0, -1)
        )
