"""Recipes: from files, from options, and what cannot be one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from wsisam_qupath.cli.main import cli
from wsisam_qupath.errors import OptionError, PromptError
from wsisam_qupath.model.adapter import read_adapter
from wsisam_qupath.model.bases import find_base
from wsisam_qupath.model.shipped import find_shipped_adapter
from wsisam_qupath.prompts import PromptKind
from wsisam_qupath_training.recipes import (
    fit_recipe,
    make_single_decoder_recipe,
    override_decoders,
    override_numbers,
    read_recipe,
)
from wsisam_qupath_training.settings import DecoderSettings, Recipe
from wsisam_qupath_training.trainer.write_adapter import blend

RECIPES = Path(__file__).parents[2] / "training" / "recipes"


def test_without_a_word_boxes_go_to_a_blend_of_what_points_learn() -> None:
    recipe = Recipe()

    assert list(recipe.decoders) == ["points"]
    assert recipe.blends["boxes"].decoder == "points"
    assert recipe.routes[PromptKind.BOX].decoder == "boxes"
    assert set(recipe.cards) == {"points", "boxes"}


@pytest.mark.parametrize(
    ("n_objects", "steps", "views"),
    [(1, 100, 40), (30, 219, 110), (100, 400, 200), (90_000, 2800, 1000)],
)
def test_an_adapter_is_tuned_for_as_long_as_the_data_are_worth(
    n_objects: int, steps: int, views: int
) -> None:
    path = find_shipped_adapter("lite-medsam")
    assert path is not None
    start = read_adapter(path, find_base("lite-medsam"))

    recipe = fit_recipe(start, n_objects)

    (decoder,) = recipe.decoders.values()
    assert (decoder.steps, recipe.views) == (steps, views)
    assert decoder.card == start.card.decoders["points"]
    assert set(decoder.start_shares) == {0.0, 0.25, 0.5, 0.75}
    whole = Recipe().decoders["points"]
    assert decoder.decoder_rate < whole.decoder_rate
    assert recipe.routes[PromptKind.BOX].decoder == "boxes"
    assert fit_recipe(None, n_objects) == Recipe()


@pytest.mark.parametrize("shares", [(), (0.5, 1.5), (-0.1,)])
def test_a_share_of_the_start_is_a_share(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="start_shares are one or more numbers from 0 to 1"):
        DecoderSettings(start_shares=shares)


def test_a_blend_lies_between_the_tuned_weights_and_those_of_the_base() -> None:
    tuned = {"a": np.array([1.0, 3.0], dtype=np.float16)}
    base = {"a": torch.tensor([0.0, -1.0]), "b": torch.tensor([9.0])}

    mixed = blend(tuned, base, 0.25)

    np.testing.assert_array_equal(mixed["a"], np.array([0.75, 2.0], dtype=np.float16))
    assert list(mixed) == ["a"]


def test_the_routed_recipe_has_two_decoders_and_no_blend() -> None:
    recipe = read_recipe(RECIPES / "routed.toml")

    assert set(recipe.decoders) == {"boxes", "points"}
    assert not recipe.blends
    assert recipe.decoders["boxes"].card.reads_lr


def test_options_change_every_decoder() -> None:
    recipe = override_numbers(
        read_recipe(RECIPES / "routed.toml"), steps=7, views=3, batch=2, seed=5
    )

    assert {settings.steps for settings in recipe.decoders.values()} == {7}
    assert {settings.objects_per_step for settings in recipe.decoders.values()} == {2}
    assert (recipe.views, recipe.seed) == (3, 5)


def test_options_make_one_decoder() -> None:
    recipe = make_single_decoder_recipe(architecture="wsi-sam", aggregation="max", hr_share=0.25)

    (settings,) = recipe.decoders.values()
    assert (settings.scope, settings.card.aggregation, settings.hr_share) == (
        "adapter",
        "max",
        0.25,
    )
    assert make_single_decoder_recipe(architecture="sam").decoders["all"].scope == "decoder"


def test_a_frozen_sam_that_learns_nothing_is_refused() -> None:
    with pytest.raises(OptionError, match="sam adds nothing to it"):
        make_single_decoder_recipe(scope="adapter", architecture="sam")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("views = 0", "views: Input should be greater"),
        ("viws = 10", "viws: Extra inputs"),
        ('[routes]\nbox = { decoder = "points" }', "no route for"),
        ('[blends]\nboxes = { decoder = "none" }', "the blend boxes needs"),
    ],
)
def test_what_is_no_recipe_says_why(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(OptionError, match=message):
        read_recipe(path)


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("views = = 3", encoding="utf-8")

    with pytest.raises(PromptError, match="cannot be read as TOML"):
        read_recipe(path)


def test_the_recipe_of_the_paper_is_what_the_paper_says() -> None:
    recipe = read_recipe(RECIPES / "paper.toml")

    (settings,) = recipe.decoders.values()
    assert (settings.scope, settings.hr_share, settings.wsi_rate) == ("adapter", 0.5, 0.001)
    assert (settings.objects_per_step, settings.cross_entropy_weight) == (1, 1.0)
    assert (settings.windowed_share, settings.iou_weight, settings.card.iou_head) == (0, 0, False)
    assert (settings.card.sam_logits, settings.card.answers) == ("hr", "hr")
    assert (recipe.hr_mpp, recipe.sampling.placement) == (1.0, "random")
    assert (recipe.count_views(245), settings.mix.outline_box_share) == (4900, 0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"hr_share": 0.75}, ("hr_share", 0.75)),
        ({"rate": 0.01}, ("wsi_rate", 0.01)),
        ({"architecture": "sam", "scope": "mask-decoder"}, ("scope", "mask-decoder")),
    ],
)
def test_options_override_a_recipe_and_leave_the_rest(
    options: dict[str, object], expected: tuple[str, object]
) -> None:
    recipe = read_recipe(RECIPES / "paper.toml")

    changed = override_decoders(recipe, **options)  # type: ignore[arg-type]

    name, value = expected
    assert getattr(changed.decoders["wsi"], name) == value
    assert changed.decoders["wsi"].mix == recipe.decoders["wsi"].mix
    assert changed.sampling == recipe.sampling


@pytest.mark.parametrize(("share", "answers"), [(0.0, "lr"), (0.25, "hr"), (1.0, "hr")])
def test_a_mask_without_a_share_in_the_loss_is_no_answer(share: float, answers: str) -> None:
    recipe = override_decoders(read_recipe(RECIPES / "paper.toml"), hr_share=share)

    assert recipe.cards["wsi"].answers == answers


def test_views_that_are_given_as_a_number_stand_for_those_of_each_image() -> None:
    recipe = override_numbers(read_recipe(RECIPES / "paper.toml"), views=12)

    assert recipe.count_views(245) == 12


def test_options_that_do_not_go_with_a_recipe_say_so(tmp_path: Path) -> None:
    arguments = ["train", str(tmp_path), "-o", "a.safetensors", "--scope", "whole"]

    done = CliRunner().invoke(cli, [*arguments, "--recipe", str(RECIPES / "routed.toml")])

    assert done.exit_code == 1
    assert "--scope: does not fit the recipe" in done.output
    assert "a tuned image encoder goes with one decoder" in done.output


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("encoder", "named 'encoder'"),
        ("a.b", "'a.b' is empty or has a dot"),
        ("", "'' is empty or has a dot"),
        ("../mine", "has a dot"),
        ("/mine", "'/mine' has a slash"),
        ("a\\b", "has a slash"),
    ],
)
def test_a_decoder_whose_tensors_or_folder_could_not_have_its_name_is_refused_at_the_start(
    name: str, message: str
) -> None:
    recipe = make_single_decoder_recipe(architecture="sam").model_dump()
    recipe["decoders"] = {name: recipe["decoders"]["all"]}
    recipe["routes"] = {kind: {"decoder": name} for kind in PromptKind}

    with pytest.raises(ValueError, match=message):
        Recipe.model_validate(recipe)
