"""Transferability scores: how well features, or source-class posteriors, predict a task's labels, without fine-tuning.

Scores are pure functions of NumPy arrays. They compute in float64 and return a number; higher is better. A score compares
backbones on the images of one task. Its value has no meaning by itself, and on medical tasks scores do not always rank backbones
well (https://arxiv.org/abs/2308.07444, https://arxiv.org/abs/2405.20420): compare with a probe. Compute them on training and
validation images, never on test images.
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
