"""Rational polynomial cameras (RPC) of files: read, checked and inverted. Their maths is in Modules.common."""

from Utils.rasters.rational.model import RationalModel
from Utils.rasters.rational.reading import ELLIPSOID, height_datum, read_rational

__all__ = ["ELLIPSOID", "RationalModel", "height_datum", "read_rational"]
