"""Tasks with a label per patient: volumes in which few slices show a lesion."""

import numpy as np
from support.tiny_tasks import write_task

SLICES, SIDE = 12, 32


def lesion_task(folder, patients=60, lesions=1, seed=0, shuffled=None, **card):
    """Half of the patients have a lesion: a bright spot in `lesions` of 12 slices. All have dim spots, some few and some many.

    `shuffled` is the seed of another order of the slices.
    """
    draw = np.random.default_rng(seed)
    labels = np.arange(patients) // 4 % 2
    images = draw.normal(70, 6, (patients, SLICES, SIDE, SIDE)) + draw.normal(0, 8, (patients, 1, 1, 1))
    rates = draw.uniform(1, 8, patients)
    for patient, slices in enumerate(images):
        with_lesion = draw.choice(SLICES, lesions, replace=False) if labels[patient] else ()
        for number, image in enumerate(slices):
            for level in [*([45] * draw.poisson(rates[patient])), *([150] * (number in with_lesion))]:
                top, left = draw.integers(0, SIDE - 6, 2)
                image[top : top + 6, left : left + 6] += level
    owners = np.repeat(np.arange(patients), SLICES)
    images = np.clip(images, 0, 255).astype(np.uint8).reshape(-1, 1, SIDE, SIDE)
    order = np.arange(len(owners)) if shuffled is None else np.random.default_rng(shuffled).permutation(len(owners))
    splits = np.array(["train", "train", "val", "test"])[owners % 4]
    columns = {
        "label": np.array(["healthy", "lesion"])[labels[owners]][order],
        "patient": np.array([f"p{n:03d}" for n in owners])[order],
        "slice": np.tile(np.arange(SLICES), patients)[order],
    }
    return write_task(
        folder, images[order], splits[order], columns, **{"target_of": "patient", "metric": "auroc", **card}
    )
