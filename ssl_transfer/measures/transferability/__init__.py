"""Transferability scores: how well features, or source-class posteriors, predict a task's labels, without fine-tuning.

Pure functions, NumPy in, a number out, float64 inside; more is better. A score compares backbones on one task's images; its value
has no meaning by itself, and on medical tasks scores do not always rank well (https://arxiv.org/abs/2308.07444,
https://arxiv.org/abs/2405.20420): compare with a probe. Give them training and validation images, never test.
"""

from ssl_transfer.measures.transferability.inputs import ROWS_PER_FEATURE, FewImagesWarning
from ssl_transfer.measures.transferability.linear import h_score, logme, regularized_h_score
from ssl_transfer.measures.transferability.registry import SCORES, Score, multilabel_scores, scores
from ssl_transfer.measures.transferability.separation import gbc, sfda, transrate
from ssl_transfer.measures.transferability.source import leep, mixture_posteriors, n_leep, nce
from ssl_transfer.measures.transferability.spectrum import Spectrum

__all__ = [
    "ROWS_PER_FEATURE",
    "SCORES",
    "FewImagesWarning",
    "Score",
    "Spectrum",
    "gbc",
    "h_score",
    "leep",
    "logme",
    "mixture_posteriors",
    "multilabel_scores",
    "n_leep",
    "nce",
    "regularized_h_score",
    "scores",
    "sfda",
    "transrate",
]
