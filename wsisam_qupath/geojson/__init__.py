"""GeoJSON as QuPath writes and reads it: prompts in, results out."""

from .examples import (
    Examples,
    examples_from_geojson,
    read_examples,
    read_region,
    region_from_geojson,
)
from .reading import (
    prompts_from_coordinates,
    prompts_from_geojson,
    prompts_to_refine,
    read_marks,
    read_prompts,
)
from .writing import Feature, encode_features, to_feature, write_features

__all__ = [
    "Examples",
    "Feature",
    "encode_features",
    "examples_from_geojson",
    "prompts_from_coordinates",
    "prompts_from_geojson",
    "prompts_to_refine",
    "read_examples",
    "read_marks",
    "read_prompts",
    "read_region",
    "region_from_geojson",
    "to_feature",
    "write_features",
]
