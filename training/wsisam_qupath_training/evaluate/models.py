"""Models under evaluation: a base, an adapter on it, or a model from elsewhere."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast

from wsisam_qupath.errors import OptionError
from wsisam_qupath.geometry import PatchPair
from wsisam_qupath.inference.backends import Embedding, Prediction
from wsisam_qupath.inference.loading import resolve
from wsisam_qupath.inference.predictor import Predictor
from wsisam_qupath.inference.segmenter import Segmenter
from wsisam_qupath.inference.shared_patches import SharedPatches
from wsisam_qupath.model.adapter import Adapter
from wsisam_qupath.model.bases import BASES
from wsisam_qupath.model.card import Route
from wsisam_qupath.model.shipped import find_shipped_adapter
from wsisam_qupath.options import MOST_CANDIDATES, ModelSpec, OutlineOptions
from wsisam_qupath.prompts import Prompt
from wsisam_qupath.prompts.encoding import EncodedPrompt
from wsisam_qupath.prompts.results import Empty, Result
from wsisam_qupath.slide import Slide

# At least two letters before the colon: C:adapter is a file on Windows.
_FACTORY = re.compile(r"([A-Za-z_]\w+(?:\.\w+)*):([A-Za-z_]\w*)", re.ASCII)


class Model(Protocol):
    """A model under evaluation. It sees what a user's click or box gives it, and no more.

    Attributes:
        name: name of the model, which heads its column.
        base_size_px: side of the patch that it reads, encoder px.
        hr_mpp: µm per encoder px of the HR patch that it is best at.
    """

    @property
    def name(self) -> str: ...

    @property
    def base_size_px(self) -> int: ...

    @property
    def hr_mpp(self) -> float: ...

    def embed(self, slide: Slide, pair: PatchPair) -> object:
        """Read a patch pair and compute what no prompt changes."""

    def predict(self, embedding: Any, encoded: Sequence[EncodedPrompt]) -> Sequence[Prediction]:
        """Answer prompts of one patch pair, in their order.

        Returns:
            One mask for each prompt, 256 x 256 logits, over the patch that the prediction names.
        """


@dataclass(frozen=True)
class PredictorModel:
    """A model of this program.

    Attributes:
        shared: encoded patches that models with the same encoder share; None shares nothing.
    """

    name: str
    predictor: Predictor
    shared: SharedPatches | None = None

    @property
    def base_size_px(self) -> int:
        """See :class:`Model`."""
        return self.predictor.base.size_px

    @property
    def hr_mpp(self) -> float:
        """See :class:`Model`."""
        return self.predictor.hr_mpp

    def embed(self, slide: Slide, pair: PatchPair) -> Embedding:
        """See :class:`Model`. The LR patch is read only where a decoder looks at it."""
        count = self.predictor.patch_count
        ((_, embedding),) = self.segmenter.embed_pairs(slide, [pair], patch_count=count)
        return embedding

    def predict(self, embedding: Embedding, encoded: Sequence[EncodedPrompt]) -> list[Prediction]:
        """See :class:`Model`. Of several masks, the one with the highest predicted IoU is given."""
        return [masks[0] for masks in self.predictor.predict(embedding, encoded)]

    @cached_property
    def segmenter(self) -> Segmenter:
        """The engine that every command answers prompts with."""
        return Segmenter(self.predictor, shared=self.shared)

    def outline(
        self, slide: Slide, prompts: Sequence[Prompt], object_size_um: float | None
    ) -> Iterator[Result | Empty]:
        """Answer prompts as the segment command does by default, with all candidates.

        Args:
            object_size_um: what is said of the objects that bare points mark.
        """
        options = OutlineOptions(object_size_um=object_size_um, candidates=MOST_CANDIDATES)
        return self.segmenter.segment(slide, prompts, options)


def load_model(
    spec: str,
    usual: ModelSpec,
    *,
    second_pass: bool = True,
    shared: SharedPatches | None = None,
) -> Model:
    """Load the model that a specification names.

    Args:
        spec: ``none`` (the base alone), ``default`` (the adapter that comes with this package
            for the base), a base's name (that base alone), the path of an adapter,
            ``BASE+PATH`` (an adapter of another base), or ``module:factory``, a function without
            arguments that returns an :class:`Model`.
        usual: base to use where the specification names none, and where to compute.
        second_pass: whether adapters refine their first answer.
        shared: see :class:`PredictorModel`.

    Raises:
        OptionError: the specification names nothing, or a factory returned no model.
        AdapterError, WeightsError, DeviceError: see :func:`.resolve`.
    """
    if (factory := _FACTORY.fullmatch(spec)) and not Path(spec).exists():
        return _make_by_factory(factory[1], factory[2])
    base, adapter = parse_spec(spec, usual.base)
    weights = usual.weights if base == usual.base else None
    model = resolve(replace(usual, base=base, adapter=adapter, weights=weights))
    name = f"{base} alone" if adapter is None else adapter.stem
    predictor = model.load()
    if not second_pass and predictor.adapter is not None:
        single = _drop_second_passes(predictor.adapter)
        predictor = Predictor(predictor.backend, predictor.base, single, predictor.stored)
    return PredictorModel(name, predictor, shared)


def _drop_second_passes(adapter: Adapter) -> Adapter:
    """Make the same adapter without second passes."""
    routes = {kind: Route(decoder=route.decoder) for kind, route in adapter.card.routes.items()}
    return replace(adapter, card=adapter.card.model_copy(update={"routes": routes}))


def parse_spec(spec: str, base: str) -> tuple[str, Path | None]:
    """Parse a specification into a base and an adapter; ``base`` is the usual base."""
    if spec == "none":
        return base, None
    if spec == "default":
        return base, find_shipped_adapter(base)
    if spec in BASES:
        return spec, None
    other, plus, path = spec.partition("+")
    if plus and other in BASES:
        return parse_spec(path, other)
    return base, Path(spec)


def load_models(
    specs: Sequence[str], usual: ModelSpec, *, second_pass: bool = True
) -> tuple[Model, ...]:
    """Load several models, each under a name of its own; encoded patches are shared.

    Raises:
        OptionError: two have the same name, or see :func:`load_model`.
    """
    shared = SharedPatches()
    models = tuple(
        load_model(spec, usual, second_pass=second_pass, shared=shared)
        for spec in dict.fromkeys(specs)
    )
    names = [model.name for model in models]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise OptionError("compare", f"two models are called {twice[0]}: rename one of the files.")
    return models


def reads_adapter(model: Model) -> bool:
    """Whether a model is more than a base alone."""
    return not isinstance(model, PredictorModel) or model.predictor.adapter is not None


def describe_source(model: Model) -> str:
    """Describe where a model comes from, for tables."""
    if not isinstance(model, PredictorModel):
        return "a model from elsewhere"
    predictor = model.predictor
    if predictor.adapter is None:
        return f"the base {predictor.base.name} alone"
    return f"{predictor.base.name} with the adapter {predictor.adapter.sha256[:12]}"


def describe_model(model: Model) -> Mapping[str, object]:
    """Describe a model for the results: its base, its adapter and their checksums."""
    told: dict[str, object] = {
        "name": model.name,
        "size_px": model.base_size_px,
        "hr_mpp": model.hr_mpp,
    }
    if isinstance(model, PredictorModel):
        predictor = model.predictor
        told |= {
            "base": predictor.base.name,
            "base_sha256": predictor.base.sha256,
            "adapter_sha256": predictor.adapter.sha256 if predictor.adapter else None,
            "backend": predictor.backend.name,
        }
    return told


def _make_by_factory(module_name: str, factory_name: str) -> Model:
    spec = f"{module_name}:{factory_name}"
    try:
        module = importlib.import_module(module_name)
    except ImportError as exc:
        raise OptionError(
            "compare",
            f"{spec} cannot be imported ({exc}). Put the folder of {module_name} on PYTHONPATH.",
        ) from exc
    factory: Callable[[], object] | None = getattr(module, factory_name, None)
    if not callable(factory):
        raise OptionError("compare", f"{module_name} has no function {factory_name}.")
    made = factory()
    _check(made, spec)
    return cast(Model, made)


def _check(made: object, spec: str) -> None:
    """Check a foreign model at once, not after an hour."""
    size_px, hr_mpp = getattr(made, "base_size_px", None), getattr(made, "hr_mpp", None)
    wrong = {
        "a name": not isinstance(getattr(made, "name", None), str),
        "base_size_px above 0": not (isinstance(size_px, int) and size_px > 0),
        "hr_mpp above 0": not (isinstance(hr_mpp, (int, float)) and hr_mpp > 0),
        "embed(slide, pair)": not callable(getattr(made, "embed", None)),
        "predict(embedding, tokens)": not callable(getattr(made, "predict", None)),
    }
    if missing := [what for what, is_wrong in wrong.items() if is_wrong]:
        raise OptionError(
            "compare", f"{spec} returned {type(made).__name__}, without {', '.join(missing)}."
        )
