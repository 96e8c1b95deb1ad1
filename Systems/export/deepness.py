"""The entries of an ONNX file that Deepness, a plugin of QGIS, reads; each value is JSON.

Deepness (arXiv 2309.13963; its documentation, page "Model metadata") cuts a raster layer into tiles, brings 8-bit bands
to [0, 1], subtracts a mean, divides by a deviation, and joins what the model draws to a new layer.
"""

from __future__ import annotations

import json

from Systems.export.exportable import Exportable

_CENTIMETRES = 100.0
_OVERLAP = 25


def deepness_metadata(subject: Exportable, tile_size: int, resolution: float | None) -> dict[str, str]:
    """The entries of a model with one input.

    Args:
        subject: the model.
        tile_size: side of the tiles in pixels.
        resolution: metres a pixel of the images that it was trained on; None where nobody has said it: Deepness then
            takes what its user says.
    """
    entries: dict[str, object] = {
        "model_type": "Segmentor" if subject.classes else "Regressor",
        "tiles_size": tile_size,
        "tiles_overlap": _OVERLAP,
        # Images are normalised inside the file.
        "standardization_mean": [0.0, 0.0, 0.0],
        "standardization_std": [1.0, 1.0, 1.0],
    }
    if resolution is not None:
        entries["resolution"] = round(resolution * _CENTIMETRES, 6)  # centimetres a pixel
    if subject.classes:
        entries["class_names"] = dict(enumerate(subject.classes))
    else:
        entries["reg_output_scaling"] = 1.0
    return {name: json.dumps(value) for name, value in entries.items()}
