"""Prediction: apply a fitted probe with its backbone to new images."""
