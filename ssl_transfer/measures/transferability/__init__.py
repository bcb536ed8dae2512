"""Transferability scores: what features, or a source classifier's opinions, say of a task before anything is trained on it.

Pure functions, NumPy in, a number out, float64 inside; more is better. A score compares backbones on one task's images; its value
alone says nothing, and on medical tasks neither does it always rank well (https://arxiv.org/abs/2308.07444,
https://arxiv.org/abs/2405.20420): look at a probe beside it. Give them training and validation images, never test.
"""

from ssl_transfer.measures.transferability.inputs import ROWS_PER_FEATURE, FewImagesWarning
from ssl_transfer.measures.transferability.linear import h_score, logme, regularized_h_score
from ssl_transfer.measures.transferability.registry import FEATURE_SCORES, SCORE_NAMES, SCORES, SOURCE_SCORES, scores
from ssl_transfer.measures.transferability.separation import gbc, sfda, transrate
from ssl_transfer.measures.transferability.source import leep, mixture_posteriors, n_leep, nce
from ssl_transfer.measures.transferability.spectrum import Spectrum

__all__ = [
    "FEATURE_SCORES",
    "ROWS_PER_FEATURE",
    "SCORES",
    "SCORE_NAMES",
    "SOURCE_SCORES",
    "FewImagesWarning",
    "Spectrum",
    "gbc",
    "h_score",
    "leep",
    "logme",
    "mixture_posteriors",
    "n_leep",
    "nce",
    "regularized_h_score",
    "scores",
    "sfda",
    "transrate",
]
