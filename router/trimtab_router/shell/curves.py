"""The packaged curves of accuracy against the thinking budget (`trimtab classifier curves --out` writes the file)."""

import json
from functools import cache
from importlib import resources
from typing import Final

from trimtab_router.core.curve import Curve, Point, fit

FILE: Final = "curves.json"


@cache
def packaged_curves() -> dict[str, Curve]:
    """By class; classes that no permissively licensed rows say anything of have none."""
    text = resources.files("trimtab_router").joinpath("models", FILE).read_text("utf-8")
    found = {entry["class"]: fit([Point(*p) for p in entry["points"]]) for entry in json.loads(text)["curves"]}
    return {name: curve for name, curve in found.items() if curve is not None}
