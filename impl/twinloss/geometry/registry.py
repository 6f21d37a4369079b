"""The kinds of boxes by the name by which a definition asks for them (``spec.geometry``)."""

from __future__ import annotations

from twinloss.geometry.base import Geometry
from twinloss.geometry.oriented import ORIENTED
from twinloss.geometry.upright import UPRIGHT

GEOMETRIES: dict[str, Geometry] = {kind.name: kind for kind in (UPRIGHT, ORIENTED)}
