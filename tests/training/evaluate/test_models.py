"""Models by their specifications: bases, adapters and factories."""

from pathlib import Path

import pytest

from wsisam_qupath.errors import OptionError
from wsisam_qupath.model.shipped import find_shipped_adapter
from wsisam_qupath.options import DEFAULT_BASE, ModelSpec
from wsisam_qupath_training.evaluate.models import PredictorModel, load_model, parse_spec


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("none", ("lite-medsam", None)),
        ("mobile-sam", ("mobile-sam", None)),
        ("a/b.safetensors", ("lite-medsam", Path("a/b.safetensors"))),
        ("mobile-sam+a+b.safetensors", ("mobile-sam", Path("a+b.safetensors"))),
        ("mobile-sam+none", ("mobile-sam", None)),
        ("other+b.safetensors", ("lite-medsam", Path("other+b.safetensors"))),
    ],
)
def test_a_specification_names_a_base_and_an_adapter(
    spec: str, expected: tuple[str, Path | None]
) -> None:
    assert parse_spec(spec, "lite-medsam") == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no_such_module:make", "cannot be imported.*PYTHONPATH"),
        ("fixtures.evaluate_models:nothing", "has no function nothing"),
        (
            "fixtures.evaluate_models:no_model",
            r"returned object, without a name, base_size_px above 0",
        ),
    ],
)
def test_a_factory_that_makes_no_model_is_refused(spec: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        load_model(spec, ModelSpec())


@pytest.mark.slow
def test_second_passes_can_be_left_out() -> None:
    shipped = find_shipped_adapter(DEFAULT_BASE)
    assert shipped is not None
    usual, single = (
        load_model(str(shipped), ModelSpec(backend="openvino", device="cpu"), second_pass=on)
        for on in (True, False)
    )

    assert isinstance(usual, PredictorModel)
    assert isinstance(single, PredictorModel)
    passes = [
        {route.second_pass.value for route in model.predictor.adapter.card.routes.values()}
        for model in (usual, single)
        if model.predictor.adapter is not None
    ]
    assert passes == [{"none", "own-mask"}, {"none"}]
