"""MS COCO as ``CATCH.json`` has it."""

from typing import Any

CATCH_CLASSES = (
    "Bone", "Cartilage", "Dermis", "Epidermis", "Subcutis", "Inflamm/Necrosis", "Melanoma",
    "Plasmacytoma", "Mast Cell Tumor", "PNST", "SCC", "Trichoblastoma", "Histiocytoma",
)  # fmt: skip


def coco(*annotations: Any) -> dict[str, Any]:
    """CATCH's own lists of two slides and all 13 classes."""
    return {
        "images": [
            {"id": 7, "file_name": "Histiocytoma_01_1.svs", "width": 5000, "height": 4000},
            {"id": 9, "file_name": "PNST_02_1.svs"},
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(CATCH_CLASSES, start=1)],
        "annotations": list(annotations),
    }
