from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file

from fixtures.models import (
    DECODERS,
    PLAIN_BASE,
    ROUTES,
    Tensors,
    card,
    random_tensors,
    routed_to,
    sam_of,
    write_random_adapter,
)
from wsisam_qupath.errors import AdapterError, OutputError
from wsisam_qupath.model.adapter import (
    CARD_KEY,
    Adapter,
    identify_encoder,
    read_adapter,
    write_adapter,
)
from wsisam_qupath.model.build import Networks, build_networks, encoder_state
from wsisam_qupath.model.card import AdapterCard, DecoderCard, Route, SamLogits, SecondPass
from wsisam_qupath.model.decoders import SamDecoder, WsiSamDecoder
from wsisam_qupath.prompts import PromptKind


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "adapter.safetensors"


@pytest.fixture
def tensors(lite: Networks) -> Tensors:
    return random_tensors(lite)


def write_raw(path: Path, tensors: Mapping[str, Any], metadata: dict[str, Any] | None) -> None:
    """An adapter as nobody who uses :func:`write_adapter` can write it."""
    text = None if metadata is None else {CARD_KEY: json.dumps(metadata)}
    save_file(dict(tensors), path, text)


def card_json(**changes: Any) -> dict[str, Any]:
    return {**card().model_dump(mode="json"), **changes}


def test_an_adapter_is_read_as_it_was_written(path: Path, tensors: Tensors) -> None:
    write_adapter(path, card(), tensors)

    adapter = read_adapter(path, PLAIN_BASE)

    assert adapter.card == card()
    assert adapter.name == "adapter"
    assert adapter.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert adapter.reads_lr
    again = {f"{d}.{name}": t for d in DECODERS for name, t in adapter.tensors(d).items()}
    assert again.keys() == tensors.keys()
    assert all(np.array_equal(again[name], tensor) for name, tensor in tensors.items())


def test_the_same_adapter_is_the_same_file(tmp_path: Path, lite: Networks) -> None:
    for name in ("one", "two"):
        write_random_adapter(tmp_path / name, lite)

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_tensors_that_are_views_are_written_in_their_own_order(path: Path) -> None:
    tensor = np.arange(6, dtype=np.float32).reshape(2, 3)

    write_adapter(path, card(), {"points.mask_decoder.iou_token.weight": tensor.T})

    read = read_adapter(path, PLAIN_BASE).tensors("points")
    assert np.array_equal(read["mask_decoder.iou_token.weight"], tensor.T)


def test_a_decoder_gets_no_tensors_of_one_whose_name_begins_alike(path: Path) -> None:
    plain = DecoderCard(architecture="sam")
    alike = card({"point": plain, "points": plain}, routed_to("points"))
    name = "mask_decoder.iou_token.weight"
    one, two = np.ones((1, 256), np.float32), np.full((1, 256), 2, np.float32)

    write_adapter(path, alike, {f"point.{name}": one, f"points.{name}": two})

    adapter = read_adapter(path, PLAIN_BASE)
    assert np.array_equal(adapter.tensors("point")[name], one)
    assert np.array_equal(adapter.tensors("points")[name], two)


def test_writing_where_no_folder_is_names_the_place(tmp_path: Path, tensors: Tensors) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        write_adapter(tmp_path / "nowhere" / "a.safetensors", card(), tensors)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_a_device_is_no_adapter_and_not_waited_for(path: Path, kind: str) -> None:
    os.mkfifo(path)
    named = path if kind == "pipe" else Path("/dev/zero")

    with pytest.raises(AdapterError, match=f"There is no adapter at {named}: check the path"):
        read_adapter(named, PLAIN_BASE)


@pytest.mark.parametrize("kind", ["nothing", "folder"])
def test_a_missing_adapter_is_named(tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        (tmp_path / "a").mkdir()

    with pytest.raises(AdapterError, match=r"There is no adapter at .*a: check the path"):
        read_adapter(tmp_path / "a", PLAIN_BASE)


def test_a_file_that_is_no_safetensors_is_named(path: Path) -> None:
    path.write_bytes(b"not tensors at all, but long enough for a header")

    with pytest.raises(AdapterError, match=r"adapter\.safetensors is not a readable"):
        read_adapter(path, PLAIN_BASE)


@pytest.mark.parametrize("kept", [0, 4, 1000, -1])
def test_a_truncated_adapter_is_named(path: Path, lite: Networks, kept: int) -> None:
    write_random_adapter(path, lite)
    path.write_bytes(path.read_bytes()[:kept])

    with pytest.raises(AdapterError, match=r"adapter\.safetensors is not a readable .* again"):
        read_adapter(path, PLAIN_BASE)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_safetensors_file_of_another_program_is_no_adapter(
    path: Path, metadata: dict[str, str] | None
) -> None:
    save_file({"weight": np.zeros(3, np.float32)}, path, metadata)

    with pytest.raises(AdapterError, match="no adapter of wsisam-qupath"):
        read_adapter(path, PLAIN_BASE)


def as_version_0_1(path: Path) -> None:
    """Write the card of an adapter as version 0.1 wrote it."""
    with safe_open(path, framework="numpy") as file:
        stated = json.loads(file.metadata()[CARD_KEY])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    known = ("architecture", "enhanced", "aggregation", "iou_head", "hr_only")
    decoders = {
        name: {"add_sam_logits": True, **{key: one[key] for key in known}}
        for name, one in stated["decoders"].items()
    }
    del stated["routes"]["point"]
    save_file(tensors, path, {CARD_KEY: json.dumps({**stated, "format": 1, "decoders": decoders})})


def test_an_adapter_that_expects_the_older_early_features_is_refused(
    path: Path, lite: Networks
) -> None:
    write_random_adapter(path, lite)
    as_version_0_1(path)

    with pytest.raises(AdapterError, match=r"older wsisam-qupath .* Train the adapter again"):
        read_adapter(path, PLAIN_BASE)


def test_an_adapter_of_version_0_1_with_decoders_of_sam_is_read(
    path: Path, tensors: Tensors
) -> None:
    plain = card({"points": DecoderCard(architecture="sam")}, routed_to("points"))
    write_adapter(path, plain, {n: t for n, t in tensors.items() if n.startswith("points.")})
    as_version_0_1(path)

    assert read_adapter(path, PLAIN_BASE).card == plain


def test_a_damaged_card_of_version_0_1_is_told(path: Path, tensors: Tensors) -> None:
    write_raw(path, tensors, {"format": 1, "decoders": ["clicks"]})

    with pytest.raises(AdapterError, match="has a card that this version cannot read"):
        read_adapter(path, PLAIN_BASE)


def without(kind: PromptKind) -> dict[str, Any]:
    return {k.value: r.model_dump(mode="json") for k, r in ROUTES.items() if k is not kind}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": 3}, "format: Input should be 2"),
        ({"secret": 1}, "secret: Extra inputs are not permitted"),
        ({"hr_mpp": 0}, "hr_mpp: Input should be greater than 0"),
        ({"hr_mpp": float("inf")}, "hr_mpp: Input should be a finite number"),
        ({"routes": without(PromptKind.OUTLINE)}, "no route for outline"),
        (
            {"routes": {**without(PromptKind.BOX), "box": {"decoder": "circles"}}},
            "a route names circles, which is no decoder of it",
        ),
        (
            {
                "routes": {
                    **without(PromptKind.BOX),
                    "box": {
                        "decoder": "boxes",
                        "second_pass": "self-box",
                        "second_decoder": "circles",
                    },
                }
            },
            "a route names circles, which is no decoder of it",
        ),
        ({"decoders": {**card_json()["decoders"], "a.b": {"architecture": "sam"}}}, "'a.b'"),
        ({"decoders": {"boxes": {"architecture": "unet"}}}, "decoders: boxes: architecture"),
        (
            {"decoders": {**card_json()["decoders"], "encoder": {"architecture": "sam"}}},
            "a decoder is named 'encoder'",
        ),
    ],
)
def test_a_card_that_is_wrong_says_where(
    path: Path, tensors: Tensors, changes: dict[str, Any], reason: str
) -> None:
    write_raw(path, tensors, card_json(**changes))

    with pytest.raises(AdapterError, match="has a card that this version cannot read") as caught:
        read_adapter(path, PLAIN_BASE)
    assert reason in str(caught.value)


def test_a_card_that_is_no_json_is_named(path: Path, tensors: Tensors) -> None:
    save_file(tensors, path, {CARD_KEY: "{"})

    with pytest.raises(AdapterError, match="has a card that this version cannot read"):
        read_adapter(path, PLAIN_BASE)


@pytest.mark.parametrize(
    "other",
    [
        replace(PLAIN_BASE, name="mobile-sam"),
        replace(PLAIN_BASE, sha256="0" * 64),
    ],
    ids=["another base", "other weights of the same name"],
)
def test_an_adapter_of_other_weights_names_both(path: Path, lite: Networks, other: Any) -> None:
    write_random_adapter(path, lite)

    with pytest.raises(AdapterError) as caught:
        read_adapter(path, other)

    assert f"trained for lite-medsam (SHA-256 {PLAIN_BASE.sha256[:12]}…)" in str(caught.value)
    assert f"not for {other.name} (SHA-256 {other.sha256[:12]}…)" in str(caught.value)


def test_a_tensor_of_no_decoder_is_named(path: Path, tensors: Tensors) -> None:
    write_adapter(path, card(), {**tensors, "circles.wsi.hr.token.weight": np.zeros(3)})

    with pytest.raises(AdapterError, match=r"'circles\.wsi\.hr\.token\.weight' belongs to no"):
        read_adapter(path, PLAIN_BASE)


def test_a_tensor_of_an_encoder_that_the_card_does_not_tune_is_named(
    path: Path, tensors: Tensors
) -> None:
    write_adapter(path, card(), {**tensors, "encoder.neck.0.weight": np.zeros(3)})

    with pytest.raises(AdapterError, match=r"'encoder\.neck\.0\.weight' belongs to no"):
        read_adapter(path, PLAIN_BASE)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("encoder.neck.9.weight", np.zeros(1), r"'encoder\.neck\.9\.weight' is unknown"),
        ("encoder.neck.0.weight", None, r"'encoder\.neck\.0\.weight' is missing"),
        ("encoder.neck.0.weight", np.zeros(1), "tensors of its image encoder have other shapes"),
    ],
)
def test_tensors_that_do_not_fit_the_image_encoder_are_named(
    path: Path,
    lite: Networks,
    lite_state: dict[str, torch.Tensor],
    tensors: Tensors,
    name: str,
    tensor: Any,
    message: str,
) -> None:
    tensors |= {n: t.numpy() for n, t in encoder_state(lite.encoder).items()}
    tensors.pop(name, None)
    added = {} if tensor is None else {name: tensor.astype(np.float32)}
    tuned = card().model_copy(update={"tunes_encoder": True})
    write_adapter(path, tuned, {**tensors, **added})
    adapter = read_adapter(path, PLAIN_BASE)

    with pytest.raises(AdapterError, match=message):
        build_networks(PLAIN_BASE, lite_state, adapter)


def read_tuned(path: Path, tensors: Mapping[str, Any]) -> Adapter:
    """An adapter with the tensors, some of them of an image encoder of its own."""
    write_adapter(path, card().model_copy(update={"tunes_encoder": True}), tensors)
    return read_adapter(path, PLAIN_BASE)


def test_an_encoder_is_told_by_its_own_tensors_and_not_by_the_decoders(
    tmp_path: Path, tensors: Tensors
) -> None:
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    name = "encoder.neck.0.weight"
    one = read_tuned(tmp_path / "one", {**tensors, name: weight})
    others: dict[str, dict[str, Any]] = {
        "same": {**{n: 2 * t for n, t in tensors.items()}, name: weight},
        "half": {**tensors, name: weight.astype(np.float16)},
        "value": {**tensors, name: weight + 1},
        "shape": {**tensors, name: weight.reshape(3, 2)},
        "name": {**tensors, "encoder.neck.1.weight": weight},
        "more": {**tensors, name: weight, "encoder.neck.0.bias": weight[0]},
    }

    read = {key: read_tuned(tmp_path / key, others[key]) for key in others}

    same = {
        key
        for key in read
        if identify_encoder(PLAIN_BASE, read[key]) == identify_encoder(PLAIN_BASE, one)
    }
    assert same == {"same", "half"}
    assert read["same"].sha256 != one.sha256


def test_an_adapter_without_an_encoder_has_that_of_its_base(path: Path, tensors: Tensors) -> None:
    write_adapter(path, card(), tensors)
    adapter = read_adapter(path, PLAIN_BASE)
    other = replace(PLAIN_BASE, sha256="0" * 64)

    assert adapter.encoder_sha256 is None
    assert identify_encoder(PLAIN_BASE, adapter) == identify_encoder(PLAIN_BASE, None)
    assert identify_encoder(other, None) != identify_encoder(PLAIN_BASE, None)


def test_a_tensor_in_numbers_that_numpy_lacks_is_named(path: Path) -> None:
    tensor = torch.zeros(1, 256, dtype=torch.bfloat16)
    name = "points.mask_decoder.iou_token.weight"
    save_torch_file({name: tensor}, path, {CARD_KEY: card().model_dump_json()})

    with pytest.raises(AdapterError, match=r"iou_token\.weight' is of type BF16\. Save it as"):
        read_adapter(path, PLAIN_BASE)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("boxes.wsi.hr.gate", np.zeros(1), r"'boxes\.wsi\.hr\.gate' is unknown"),
        ("points.wsi.hr.token.weight", np.zeros((1, 256)), r"'points\.wsi\..*' is unknown"),
        ("points.mask_decoder.more", np.zeros(1), r"'points\.mask_decoder\.more' is unknown"),
        ("points.image_encoder.neck", np.zeros(1), r"'points\.image_encoder\.neck' is unknown"),
        ("boxes.wsi.lr.token.weight", None, r"'boxes\.wsi\.lr\.token\.weight' is missing"),
        ("boxes.wsi.lr.token.weight", np.zeros((2, 256)), "'boxes' have other shapes"),
        ("points.mask_decoder.iou_token.weight", np.zeros((1, 128)), "'points' have other shapes"),
    ],
)
def test_tensors_that_do_not_fit_their_card_are_named(
    path: Path,
    lite: Networks,
    lite_state: dict[str, torch.Tensor],
    tensors: Tensors,
    name: str,
    tensor: Any,
    message: str,
) -> None:
    tensors.pop(name, None)
    added = {} if tensor is None else {name: tensor.astype(np.float32)}
    write_adapter(path, card(), {**tensors, **added})
    adapter = read_adapter(path, PLAIN_BASE)

    with pytest.raises(AdapterError, match=message):
        build_networks(PLAIN_BASE, lite_state, adapter)


def test_an_adapters_tensors_replace_those_of_its_own_decoder_alone(
    path: Path, lite: Networks, lite_state: dict[str, torch.Tensor], tensors: Tensors
) -> None:
    name = "mask_decoder.iou_token.weight"
    token = np.full((1, 256), 7, dtype=np.float32)
    write_adapter(path, card(), {**tensors, f"points.{name}": token})

    model = build_networks(PLAIN_BASE, lite_state, read_adapter(path, PLAIN_BASE))

    boxes, points = model.decoders["boxes"], model.decoders["points"]
    assert isinstance(boxes, WsiSamDecoder)
    assert isinstance(points, SamDecoder)
    base = sam_of(lite).state_dict()
    replaced = {n for n, t in points.sam.state_dict().items() if not torch.equal(t, base[n])}
    assert replaced == {name, "prompt_encoder.no_mask_embed.weight"}
    assert torch.equal(points.sam.state_dict()[name], torch.from_numpy(token))
    assert all(torch.equal(t, base[n]) for n, t in boxes.sam.state_dict().items())
    for wsi_name, tensor in boxes.hr.state_dict().items():
        assert torch.equal(tensor, torch.from_numpy(tensors[f"boxes.wsi.hr.{wsi_name}"]))


def test_float16_tensors_load_as_float32(
    path: Path, lite_state: dict[str, torch.Tensor], tensors: Tensors
) -> None:
    halves = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    write_adapter(path, card(), halves)

    model = build_networks(PLAIN_BASE, lite_state, read_adapter(path, PLAIN_BASE))

    boxes = model.decoders["boxes"]
    assert isinstance(boxes, WsiSamDecoder)
    token = boxes.hr.token.weight
    assert token.dtype == torch.float32
    expected = halves["boxes.wsi.hr.token.weight"].astype(np.float32)
    assert torch.equal(token, torch.from_numpy(expected))


def test_a_decoder_of_every_architecture_is_built_as_its_card_says(
    path: Path, lite: Networks, lite_state: dict[str, torch.Tensor]
) -> None:
    wanted = DecoderCard(
        architecture="wsi-sam", aggregation="concat", sam_logits=SamLogits.NONE, iou_head=True
    )
    decoders = {"all": wanted}
    from wsisam_qupath.model.build import build_decoder, extract_learned_state

    learned = extract_learned_state(build_decoder(PLAIN_BASE, sam_of(lite), wanted))
    write_adapter(
        path,
        card(decoders, routed_to("all")),
        {f"all.{name}": tensor.numpy() for name, tensor in learned.items()},
    )

    model = build_networks(PLAIN_BASE, lite_state, read_adapter(path, PLAIN_BASE))

    decoder = model.decoders["all"]
    assert isinstance(decoder, WsiSamDecoder)
    assert decoder.aggregation.value == "concat"
    assert decoder.sam_logits is SamLogits.NONE
    assert decoder.iou_head is not None
    assert not decoder.training


def test_an_adapter_without_wsi_sam_reads_no_lr_patch(path: Path) -> None:
    plain = card({"all": DecoderCard(architecture="sam")}, routed_to("all"))
    write_adapter(path, plain, {"all.mask_decoder.iou_token.weight": np.zeros((1, 256))})

    assert not read_adapter(path, PLAIN_BASE).reads_lr


@pytest.mark.parametrize(
    ("route", "last"),
    [
        (Route(decoder="a"), "a"),
        (Route(decoder="a", second_decoder="b"), "a"),
        (Route(decoder="a", second_pass=SecondPass.OWN_MASK), "a"),
        (Route(decoder="a", second_pass=SecondPass.SELF_BOX, second_decoder="b"), "b"),
    ],
)
def test_the_last_decoder_of_a_route_is_the_one_that_answers(route: Route, last: str) -> None:
    assert route.last_decoder == last


def test_a_card_survives_json() -> None:
    assert AdapterCard.model_validate_json(card().model_dump_json()) == card()
