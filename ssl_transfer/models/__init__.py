"""Backbones: timm encoders with a card."""
