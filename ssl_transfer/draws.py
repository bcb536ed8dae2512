"""The draw of an evaluation: one number that everything random in it follows from.

Label subset, order of training, weights of the head, views, noise, folds and bootstrap are drawn from the pretraining seed and
the evaluation seed together. With draws shared by all pretraining seeds, the chance of one label subset would be part of every
unit of analysis, and more pretraining seeds would reject more true null hypotheses.
"""

from __future__ import annotations

import numpy as np


def draw_seed(pretraining_seed: int | None, seed: int) -> int:
    """The seed of everything random in an evaluation, the same for all arms of a study.

    It is `numpy.random.SeedSequence([pretraining_seed, seed]).generate_state(1)[0]`. Public weights have no pretraining seed:
    their draw is the evaluation seed itself.

    Args:
        pretraining_seed: Seed of the backbone's pretraining or random initialisation, at least 0; None for public weights.
        seed: Evaluation seed, at least 0.

    Returns:
        A number in [0, 2**32).

    Source:
        O'Neill 2015, https://www.pcg-random.org/posts/developing-a-seed_seq-alternative.html; NumPy's `SeedSequence` keeps its
        values in all versions (NEP 19).

    Example:
        >>> draw_seed(0, 1) != draw_seed(1, 0), draw_seed(None, 3)
        (True, 3)
    """
    if pretraining_seed is None:
        return seed
    return int(np.random.SeedSequence([pretraining_seed, seed]).generate_state(1)[0])
