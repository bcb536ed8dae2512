"""Presets of views, one per kind of image: a function whose keyword-only parameters are its options."""

from ssl_transfer.data.presets.registry import VIEWS, mild, preset_of

__all__ = ["VIEWS", "mild", "preset_of"]
