"""The other way to serve SAM to QuPath, to compare with: the viewport goes over HTTP as a PNG.

As existing servers do it, written anew: JSON with the picture in base64 and a box in its pixels,
MobileSAM in eager PyTorch, each request encoded afresh, the largest contour alone.

    python benchmarks/viewport_server.py    # prints its port
"""

from __future__ import annotations

import base64
import io
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray
from PIL import Image

from reference import mobile_sam_predictor


def main() -> None:
    server = HTTPServer(("127.0.0.1", 0), Viewports)
    print(server.server_port, flush=True)
    server.serve_forever()


class Viewports(BaseHTTPRequestHandler):
    """One picture and one box in, one GeoJSON polygon out."""

    protocol_version = "HTTP/1.1"
    predictor: Any = None

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps(self.outline(asked["image"], asked["box"])).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def outline(self, image: str, box: list[float]) -> dict[str, Any]:
        """The largest contour of the first mask, in pixels of the picture."""
        kind = type(self)
        kind.predictor = kind.predictor or mobile_sam_predictor()
        picture = Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB")
        kind.predictor.set_image(np.asarray(picture))
        masks, _, _ = kind.predictor.predict(box=np.array(box), multimask_output=False)
        return {"type": "Polygon", "coordinates": [largest_contour(masks[0]).tolist()]}

    def log_message(self, *_: Any) -> None:
        """Nothing: the benchmark's own words are enough."""


def largest_contour(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """N x 2 (x, y); a point where the mask is empty."""
    lines: list[Any] = list(contour_generator(z=np.pad(mask, 1).astype(np.float32)).lines(0.5))
    longest: NDArray[np.float64] = max(lines, key=len, default=np.zeros((1, 2)))
    return longest - 1


if __name__ == "__main__":
    main()
