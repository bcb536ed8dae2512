"""`init`: write a recipe, a task card and a study for a store, each line explained."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ssl_transfer.console import warn
from ssl_transfer.data.store import ImageStore
from ssl_transfer.errors import UsageError
from ssl_transfer.templates.target import METRICS, find_target, possible_columns
from ssl_transfer.templates.texts import Plan, card_text, recipe_text, study_text
from ssl_transfer.writing import writes

FEWEST_IMAGES = 8  # for training
FEW_TEST_CASES = 100  # patients, where they are known; fewer are warned of
PROJECTS = Path("projects")  # of the working directory


def init(store: str | Path, out: str | Path | None = None, target: str | None = None) -> dict[str, Any]:
    """Write files to start from, for the images of a store.

    A recipe with the views of the modality and a length that fits the number of images; and, if there is something to predict, a
    task card, and a study that compares pretraining on these images with ImageNet weights and random initialisation.

    Args:
        store: Folder of the store.
        out: Folder of the files; None: `projects/NAME` with the name of the store.
        target: Column to predict, several with commas, or `mask`; None: the labels, else the masks.

    Returns:
        `recipe`, `task` and `study` (paths; the last two None without a target), `target`, and `next`: commands.

    Raises:
        StoreError: If the store does not exist.
        UsageError: If one of the files exists, the target does not, or there are too few images.
    """
    opened = ImageStore(store)
    n_train = opened.card.splits["train"].images
    if n_train < FEWEST_IMAGES:
        raise UsageError(f"{store}: {n_train} training images; at least {FEWEST_IMAGES} are needed.")
    found = find_target(opened, target)
    name = Path(store).resolve().name
    plan = Plan(opened, str(store), Path(out) if out else PROJECTS / name, name, found)
    texts = {plan.recipe: recipe_text(plan)}
    if found:
        texts |= {plan.task: card_text(plan), plan.study: study_text(plan)}
    for path in texts:
        if path.exists():
            raise UsageError(
                f"{path} is already there, and is left as it is. Delete it, or name another folder by --out."
            )
    for path, text in texts.items():
        with writes(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if found:
        _warn_of_few_test_cases(opened)
    commands = [f"ssl-transfer preview {plan.recipe} --figure {plan.out}/views.png"]
    if found:
        commands += [f"ssl-transfer study run {plan.study}", f"ssl-transfer study report studies/{plan.study.stem}"]
        shown = f"{found.name} ({found.kind}): {found.text}; metric {METRICS[found.kind]}"
    else:
        commands.append(f"ssl-transfer pretrain {plan.recipe}")
        columns = ", ".join(possible_columns(opened)) or "none"
        shown = f"none: no labels and no masks. Columns that --target may name: {columns}"
    return {
        "kind": "init",
        "target": shown,
        "recipe": str(plan.recipe),
        "task": str(plan.task) if found else None,
        "study": str(plan.study) if found else None,
        "next": commands,
    }


def _warn_of_few_test_cases(store: ImageStore) -> None:
    """Warn where patients differ so much that a study of these hardly speaks for others."""
    test = store.card.splits.get("test")
    if test is None or test.images == 0:
        warn(
            f"{store.path}: no test images, so nothing can be evaluated. Ingest again with --resplit, or with more patients."
        )
        return
    count, unit = (test.images, "images") if test.patients is None else (test.patients, "patients")
    if count < FEW_TEST_CASES:
        error = 1.96 * math.sqrt(0.25 / count)
        warn(
            f"{store.path}: {count} test {unit}: an accuracy of one half is known to ±{error:.2f} over {unit} (95 %), others "
            f"somewhat better. Verdicts of a study are over pretraining seeds: they hold for these {unit}."
        )
