"""The texts of the files that `init` writes: every line with a comment in plain words."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

from ssl_transfer.data.presets import preset_of
from ssl_transfer.data.store import ImageStore
from ssl_transfer.protocols import protocols_for
from ssl_transfer.templates.target import METRIC_TEXTS, METRICS, Target

LARGEST_SIDE = 128  # pixels, for a first look
LARGEST_BATCH = 128
VIEWS_OF_A_RUN = 40_000  # training images that a run sees, all epochs together
IMAGES_A_MINUTE = 13_000  # of 64 px by the small network on two cores


@dataclass(frozen=True)
class Plan:
    """What the files are about.

    Attributes:
        store: The store.
        store_path: Its folder, as the user wrote it.
        out: Folder of the files.
        name: Of the store.
        target: None without labels and masks.
    """

    store: ImageStore
    store_path: str
    out: Path
    name: str
    target: Target | None

    @property
    def word(self) -> str:
        """Its name in names of files: letters, digits, `_`, `.` and `-`."""
        return re.sub(r"[^\w.-]+", "_", self.name)

    @property
    def recipe(self) -> Path:
        """Path of the recipe."""
        return self.out / f"pretrain_{self.word}.yaml"

    @property
    def task(self) -> Path:
        """Path of the task card."""
        return self.out / f"task_{self.word}.yaml"

    @property
    def study(self) -> Path:
        """Path of the study."""
        return self.out / f"study_{self.word}.yaml"

    @property
    def n_train(self) -> int:
        """Number of training images."""
        return self.store.card.splits["train"].images

    @property
    def side(self) -> int:
        """Height and width of the backbone's input."""
        return min(LARGEST_SIDE, max(self.store.card.size))

    @property
    def batch_size(self) -> int:
        """The largest power of two that is at most half of the training images, and at most `LARGEST_BATCH`."""
        return min(LARGEST_BATCH, 2 ** int(math.log2(self.n_train / 2)))

    @property
    def epochs(self) -> int:
        """So many that a run sees about `VIEWS_OF_A_RUN` images, from 5 to 50."""
        return min(50, max(5, round(VIEWS_OF_A_RUN / self.n_train)))

    @property
    def minutes(self) -> float:
        """Of one pretraining on two cores, roughly."""
        return max(0.1, self.epochs * self.n_train / IMAGES_A_MINUTE * (self.side / 64) ** 2)

    @property
    def views(self) -> str:
        """The preset of the modality, as YAML."""
        card = self.store.card
        preset = preset_of(card.domain, card.units)
        grey = preset == "natural" and card.channels == 1
        return "{name: natural, colour: 0, grey: 0}" if grey else preset


def _value(path: Path | str) -> str:
    """A path as a value of YAML, quoted where its characters need it."""
    return str(path) if re.fullmatch(r"[\w./][\w./-]*", str(path)) else json.dumps(str(path), ensure_ascii=False)


def recipe_text(plan: Plan) -> str:
    """The recipe of a pretraining."""
    card = plan.store.card
    height, width = card.size
    rows = [
        ("data:", "what is learnt from"),
        (f"  store: {_value(plan.store_path)}", "the images; only those of the split `train` are read, and no labels"),
        (f"  views: {plan.views}", f"random changes that suit {card.domain}; all presets: ssl-transfer list views"),
        (
            f"  size: {plan.side}",
            "height and width that the network sees, in pixels; more shows detail and takes longer",
        ),
        ("backbone:", "the network"),
        ("  name: resnet10t", "a small network, for a first look without a GPU; with one: resnet50"),
        (
            "  options: {channels: [32, 64, 128, 256], stem_width: 16}",
            "half as wide as usual; leave it out for another",
        ),
        (f"  in_channels: {card.channels}", "1: grey, 3: colour, as the store"),
        ("method:", "how it learns without labels"),
        ("  name: simclr", "views of one image become alike, those of others unlike; ssl-transfer list methods"),
        ("  temperature: 0.2", "the smaller, the more the most similar other images count"),
        ("  hidden_dim: 512", "width of the layer that is used in pretraining only"),
        ("optimizer:", "how its weights are changed"),
        ("  name: adamw", "a usual optimiser for batches of this size"),
        ("  lr: 1.0e-3", "the learning rate; halve it if the loss jumps"),
        ("  weight_decay: 0.01", "keeps weights small"),
        ("train:", "for how long"),
        (f"  epochs: {plan.epochs}", "how often every image is seen; more helps, most of all with few images"),
        (f"  warmup_epochs: {max(1, plan.epochs // 10)}", "in which the rate rises from 0"),
        (f"  batch_size: {plan.batch_size}", "images of one step; of all GPUs together"),
        ("  precision: auto", "half precision where the machine has it"),
        ("  seed: 0", "another seed gives another pretraining; the study sets it"),
    ]
    head = [
        f"# SimCLR on {plan.store_path}: {plan.n_train:,} training images of {height} × {width} px ({card.domain}).",
        f"#   ssl-transfer pretrain {plan.recipe}",
        f"# Look at the views first: ssl-transfer preview {plan.recipe} --figure {plan.out}/views.png",
        "# Every key: the page Keys of a recipe of the documentation; any can be set on the command line, as train.epochs=10.",
    ]
    return _text(head, rows)


def card_text(plan: Plan) -> str:
    """The card of a task."""
    assert plan.target
    by = plan.store.card.split_by
    whose = (
        "of one patient are never in two splits" if by == "patient" else f"are split by {by}: patients are not known"
    )
    metric = METRICS[plan.target.kind]
    first, *more = plan.target.lines
    rows = [
        (f"store: {_value(plan.store_path)}", f"the images and their labels; images {whose}"),
        (first, plan.target.text),
        *((line, "the column of the store") for line in more),
        (f"metric: {metric}", f"{METRIC_TEXTS[plan.target.kind]}; settings are selected by it"),
    ]
    head = [
        f"# What is predicted of {plan.store_path}, and how it is scored ({plan.target.kind}).",
        f"#   ssl-transfer evaluate {protocols_for(plan.target.kind)[0]} imagenet:efficientnet_lite0 {plan.task}",
        "# Other targets and metrics: docs/evaluation.md.",
    ]
    return _text(head, rows)


def study_text(plan: Plan) -> str:
    """A study: pretraining on the images of the store, ImageNet weights, random initialisation."""
    assert plan.target
    name = plan.name if plan.target.name == "label" else plan.target.name.replace(",", "_").replace("/", "_")
    what = "the labels" if plan.target.name == "label" else plan.target.name
    protocol = protocols_for(plan.target.kind)[0]
    metric = METRICS[plan.target.kind]
    fractions = _fractions(plan.n_train)
    few = f"protocol: {protocol}, metric: {metric}, fractions: [{fractions[0]:g}]"
    rows = [
        (f"title: {json.dumps(f'Is pretraining on the images of {plan.name} worth it?')}", "heads the report"),
        (
            f'question: "To predict {what}, is a backbone pretrained without labels on these images better than ImageNet '
            'weights, or than random initialisation?"',
            "below it",
        ),
        ("stores:", "images, by names for this file"),
        (f"  own: {{path: {_value(plan.store_path)}}}", "a store, or `source` and `options` of ingest"),
        ("pretrain:", "what all pretrainings have in common"),
        (f"  recipe: {_value(plan.recipe)}", "how arms with a `store` are pretrained"),
        ("pretrainings:", "the arms that are compared"),
        ("  own pretraining: {store: own}", "pretrained here, once for every seed"),
        ("  ImageNet: {backbone: imagenet:efficientnet_lite0}", "1.28 million labelled photographs; another network"),
        ("  random initialisation: {store: own, untrained: true}", "the network of the recipe before its first step"),
        ("pretraining_seeds: 6", "pretrainings of each arm: fewer take less time, and find larger differences only"),
        ("tasks:", "targets"),
        (f'  "{name}": {{card: {_value(plan.task)}, store: own}}', "what is predicted"),
        ("evaluations:", "how arms are tested"),
        *_evaluations(plan, fractions),
        *_larger_images(plan),
        ("statistics:", "what is decided, and how"),
        (
            f'  gate: {{compare: own pretraining, with: random initialisation, on: {{task: "{name}"}}, {few}}}',
            "is it of any use?",
        ),
        ("  primary:", "the question, fixed before the first result"),
        (
            f'    - {{compare: own pretraining, with: ImageNet, on: {{task: "{name}"}}, {few}}}',
            "own pretraining less ImageNet",
        ),
        ("  margin: 0.02", "smaller differences count as equivalent"),
        ("  relevant: 0.05", "the difference that you would not want to miss"),
        (
            "  components: {pretraining: 0.016, residual: 0.039}",
            "SDs of the quickstart, for `plan --power`, until there are results",
        ),
        ("resources:", "rough estimates for two cores, for `plan`"),
        (f"  pretrain: {{minutes: {plan.minutes:.2g}}}", "of one pretraining"),
        ("  untrained: {minutes: 0.05}", "of one random initialisation"),
        ("  features: {minutes: 0.1}", "one pass over the images"),
        *((f"  {word}: {{minutes: 0.2}}", "all draws of one backbone") for word in protocols_for(plan.target.kind)[:2]),
    ]
    head = [
        f"# Pretraining on {plan.store_path} against ImageNet weights and random initialisation.",
        f"#   ssl-transfer study plan {plan.study} --dry-run --power",
        f"#   ssl-transfer study run {plan.study} && ssl-transfer study report studies/{plan.study.stem}",
        "# ImageNet's network is larger than that of the recipe. For one network in all arms, which takes a GPU, give the recipe",
        "# backbone.name tf_efficientnet_lite0 without options; the arm `ImageNet, continued: {store: own,",
        "# init: imagenet:efficientnet_lite0}` then goes on from ImageNet. More: docs/studies.md.",
    ]
    return _text(head, rows)


def _fractions(n_train: int) -> list[float]:
    """Shares of the labels: all, and so few that pretraining can matter."""
    return [0.1 if n_train >= 500 else 0.25 if n_train >= 100 else 0.5, 1.0]


def _evaluations(plan: Plan, fractions: list[float]) -> list[tuple[str, str]]:
    assert plan.target
    shares = ", ".join(f"{fraction:g}" for fraction in fractions)
    if plan.target.kind == "segmentation":
        settings = "set: {train.steps: 200, train.check_every_steps: 50, precision: auto}"
        return [(f"  - {{protocol: segment, fractions: [{shares}], {settings}}}", "a U-Net on the backbone")]
    rows = [
        (
            f"  - {{protocol: linear_probe, fractions: [{shares}], seeds: 8}}",
            "a linear model on frozen features; 8 draws of the labels. With all labels nothing is drawn: ImageNet has one run, "
            "and no test",
        )
    ]
    return [
        *rows,
        (f"  - {{protocol: knn, fractions: [{shares}], seeds: 8}}", "nearest neighbours in the feature space"),
    ]


def _larger_images(plan: Plan) -> list[tuple[str, str]]:
    """ImageNet's features of small images are poor; it sees them enlarged."""
    assert plan.target
    if plan.side >= LARGEST_SIDE or plan.target.kind == "segmentation":
        return []
    return [
        ("set:", "exceptions"),
        (f"  - {{pretraining: ImageNet, to: {{size: {LARGEST_SIDE}}}}}", "its features need larger images"),
    ]


def _text(head: list[str], rows: list[tuple[str, str]]) -> str:
    """The comments of the head, then YAML lines with their comments."""
    lines = [f"{line}   # {comment}" if comment else line for line, comment in rows]
    return "\n".join([*head, *lines]) + "\n"
