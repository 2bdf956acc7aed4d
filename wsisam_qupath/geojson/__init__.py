"""GeoJSON as QuPath writes and reads it: prompts in, results out."""

from .reading import (
    prompts_from_coordinates,
    prompts_from_geojson,
    prompts_to_refine,
    read_marks,
    read_prompts,
)
from .writing import Feature, encode_features, to_feature, write_features

__all__ = [
    "Feature",
    "encode_features",
    "prompts_from_coordinates",
    "prompts_from_geojson",
    "prompts_to_refine",
    "read_marks",
    "read_prompts",
    "to_feature",
    "write_features",
]
