"""Presets of the training protocol: a recipe and the quirks of the released code, as named options.

Every preset is resolved into each run's spec, so a record never says only "official".
"""

from typing import Any

from cml_bench.errors import unknown
from cml_bench.spec import Protocol

PRESETS: dict[str, dict[str, Any]] = {
    # Adam re-created every 100 steps, phi selected apart from psi and theta, 100 new validation tasks each time.
    "official": {"optimizer_reset_every": 100, "selection": "separate", "val_tasks": 100, "val_fresh": True},
    # The same recipe without quirks.
    "clean": {},
    # One recipe for all methods, without quirks.
    "matched": {},
}


def protocol(preset: str, overrides: dict[str, Any], where: str) -> Protocol:
    """The preset's options with overrides. A UserError for an unknown preset or key."""
    if preset not in PRESETS:
        raise unknown("protocol preset", preset, PRESETS)
    return Protocol.read({**PRESETS[preset], **overrides}, where)
