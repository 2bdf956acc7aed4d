"""Make the graphs that ship with the package, after its adapter or the export has changed.

    python scripts/pack_graphs.py

Needs the extra `torch`. A test fails while the graphs in the package are not those of its adapter.
The encoder is the base's own, also where the adapter adds narrow matrices to it: that is done where
the graph is unpacked. For an adapter that brings an encoder, run scripts/quantize_encoder.py too.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from wsisam_qupath.inference.backends.openvino_export import (  # noqa: E402
    export_decoders,
    export_encoder,
)
from wsisam_qupath.inference.ready_graphs import ENCODER, FOLDER, pack_graphs  # noqa: E402
from wsisam_qupath.model.bases import find_base  # noqa: E402
from wsisam_qupath.model.build import build_networks, read_state  # noqa: E402
from wsisam_qupath.model.shipped import load_chosen_adapter  # noqa: E402
from wsisam_qupath.model.weights import locate_weights  # noqa: E402
from wsisam_qupath.options import DEFAULT_BASE  # noqa: E402


def main() -> None:
    base = find_base(DEFAULT_BASE)
    adapter = load_chosen_adapter("default", base)
    assert adapter is not None, base.name
    FOLDER.mkdir(exist_ok=True)
    if adapter.card.tunes_encoder and not adapter.card.lora_rank:
        sys.exit(f"{adapter.path} brings a whole image encoder: only narrow matrices can ship.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        state = read_state(locate_weights(base).path)
        export_encoder(build_networks(base, state, None), folder / f"{ENCODER}.xml")
        export_decoders(build_networks(base, state, adapter), folder)
        pack_graphs(folder, base, adapter)
    for path in sorted(FOLDER.glob("*.zip")):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
