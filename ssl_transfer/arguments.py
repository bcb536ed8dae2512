"""What may stand on the command line: the arguments of every verb, and nothing of what they do."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, NoReturn

from ssl_transfer import __version__
from ssl_transfer.errors import UsageError

PROTOCOLS = ("linear_probe", "knn", "finetune", "segment")
SETTING = re.compile(r"[\w.]+=")  # key=value, unlike the backbone scratch:resnet18,size=64
OVERRIDES = "settings laid over the recipe, for example train.epochs=10"


class _Parser(argparse.ArgumentParser):
    """argparse, with its complaints in the form of every other error."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}. See {self.prog} --help.")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line.

    Returns:
        The options of a verb, and its name, `verb`. Where words and `key=value` settings may be mixed, `words` and `overrides`.

    Raises:
        UsageError: If they make no sense.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse leaves over `key=value` words that stand behind an option
    settings = [word for word in rest if "=" in word and not word.startswith("-")]
    if len(settings) < len(rest) or (settings and not hasattr(options, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if settings:
        options.overrides = [*options.overrides, *settings]
    if hasattr(options, "words"):
        options.overrides = [*filter(SETTING.match, options.words), *options.overrides]
        options.words = [word for word in options.words if not SETTING.match(word)]
    return options


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="ssl-transfer",
        description="Pretrain without labels on one domain, measure what it is worth on another, and say with statistics "
        "whether staying in the domain paid.",
    )
    parser.add_argument("--version", action="version", version=f"ssl-transfer {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    def verb(name: str, help: str, epilog: str | None = None) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=help, description=help, epilog=epilog)
        added.add_argument("--json", action="store_true", help="print one JSON object on standard output")
        added.set_defaults(verb=name)
        return added

    _quickstart_arguments(verb)
    _ingest_arguments(verb)
    added = verb(
        "inspect", "print what an artifact is: a store, backbone, features, result, ranking, analysis or study"
    )
    added.add_argument("path", type=Path)
    added.add_argument("--figure", type=Path, metavar="FILE.png", help="draw a contact sheet of a store")

    added = verb("pretrain", "store in, self-supervised backbone out", "the same recipe continues its own run")
    added.add_argument("recipe", type=Path)
    added.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
    added.add_argument("--out", type=Path, help="folder of the run (default runs/NAME-ID)")
    added.add_argument("--resume", choices=("auto", "never"), default="auto", help="never: start anew")
    added.add_argument(
        "--untrained",
        action="store_true",
        help="the backbone before its first step: random initialisation, the control",
    )

    added = verb("features", "compute and keep a backbone's features of a store")
    added.add_argument("backbone", help="a folder, scratch:NAME or timm:NAME[.TAG]")
    added.add_argument("store", type=Path)
    added.add_argument("--out", type=Path, help="folder (default runs/features/ID)")
    added.add_argument("--size", type=int, help="height and width that the backbone sees (default: its own)")
    added.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")

    added = verb("evaluate", "what a backbone is worth on a task; test is looked at once")
    added.add_argument("protocol", choices=PROTOCOLS)
    added.add_argument(
        "words",
        nargs="+",
        metavar="BACKBONE … TASK [key=value …]",
        help="backbones: folders, scratch:NAME or timm:NAME[.TAG]; task: a card in recipes/tasks/ by name, or the path of one; "
        "settings: for example fraction=[0.1,1] seed=[0,1,2]; lists and several backbones are one evaluation of each",
    )
    added.add_argument(
        "--out", type=Path, help="folder (default runs/evaluate/ID); of several evaluations: of all of them"
    )
    added.add_argument("--features", type=Path, metavar="DIR", help="of this backbone and task: where probes keep them")
    added.set_defaults(overrides=[])
    _rank_arguments(verb)
    _analyze_arguments(verb)
    _study_arguments(verb)
    return parser


def _quickstart_arguments(verb: Any) -> None:
    added = verb("quickstart", "the main job on the embedded default, end to end")
    added.add_argument("--out", type=Path, default=Path("runs/quickstart"))
    added.add_argument("--scale", choices=("full", "tiny"), default="full", help="tiny ends within a minute")


def _ingest_arguments(verb: Any) -> None:
    added = verb("ingest", "files in, image store out")
    added.add_argument("source", help="a file, a folder, or phantom:ct, phantom:cells, phantom:photographs")
    added.add_argument("--out", type=Path, required=True, metavar="STORE")
    added.add_argument("--format", default="auto", choices=("auto", "dicom", "nifti", "images", "npz"))
    added.add_argument("--labels", type=Path, metavar="CSV", help="columns to join to the rows")
    added.add_argument("--label-key", choices=("patient", "series", "file"), help="the CSV's key column")
    added.add_argument(
        "--masks", metavar="PATH|PATTERN", help="label volumes or mask images; fields {stem} {parent} {number}"
    )
    added.add_argument("--mask-names", metavar="JSON|NAMES", help='{"1": "liver"} in a file, or liver,lesion')
    added.add_argument("--size", type=int, metavar="PX", help="height and width (default: the most common)")
    added.add_argument("--channels", type=int, choices=(1, 3), help="default 3 only if all images are colour")
    added.add_argument("--modality", help="keep only this DICOM modality, for example CT")
    added.add_argument("--domain", help="for example ct, xray/chest, microscopy/cell_line")
    added.add_argument("--axis", choices=("axial", "coronal", "sagittal"), default="axial", help="slices of a volume")
    added.add_argument("--compress", action="store_true", help="blosc2 lz4 in place of plain .npy")
    added.add_argument("--resplit", action="store_true", help="draw splits anew even if the source has some")
    added.add_argument("--split", default="0.7,0.15,0.15", metavar="TRAIN,VAL,TEST", help="shares of the patients")
    added.add_argument("--seed", type=int, default=0, help="of the splits")
    added.add_argument("--max-refused", type=float, default=0.05, metavar="SHARE", help="unreadable files tolerated")
    added.add_argument("--workers", type=int, help="processes that decode (default: as many as cores)")


def _rank_arguments(verb: Any) -> None:
    added = verb("rank", "which backbone to take for a task, by what its features say; test is not looked at")
    added.add_argument("task", help="a card in recipes/tasks/ by name, or the path of one")
    added.add_argument(
        "words",
        nargs="+",
        metavar="BACKBONE … [key=value …]",
        help="folders, scratch:NAME or timm:NAME[.TAG]; settings: by=logme, resamples=0, folds, fraction, seed, size, precision",
    )
    added.add_argument(
        "--candidates", metavar="timm:NAME,…", help="public weights, left out where they cannot be fetched"
    )
    added.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="STORE[:COLUMN]",
        help="a labelled store that backbones were pretrained on: LEEP and NCE train a head on its labels (may be repeated)",
    )
    added.add_argument(
        "--features",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="features that are there (may be repeated)",
    )
    added.add_argument("--out", type=Path, help="folder (default runs/rank/ID)")
    added.set_defaults(overrides=[])


def _analyze_arguments(verb: Any) -> None:
    added = verb("analyze", "what backbones make of images: neighbours, maps, layers, what is encoded; explorer.html")
    added.add_argument(
        "words",
        nargs="+",
        metavar="BACKBONE … [key=value …]",
        help="folders (also backbone/ in the result of a fine-tune with train.keep_backbone=true), scratch:NAME or timm:NAME; "
        "settings: neighbors, index=exact|ivf|hnsw, sample, columns=[…], domain=COLUMN, duplicate, seed",
    )
    added.add_argument("--store", type=Path, required=True, help="whose images they look at")
    added.add_argument(
        "--against",
        action="append",
        default=[],
        type=Path,
        metavar="STORE",
        help="another store: how far away it lies, and where its images stand on the maps (may be repeated)",
    )
    added.add_argument(
        "--results",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="a result of `evaluate` on classes: which backbones fail on the same cases (repeat it: two at least)",
    )
    added.add_argument("--size", type=int, help="height and width that backbones see (default: their own)")
    added.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    added.add_argument("--out", type=Path, help="folder (default runs/analyze/ID)")
    added.set_defaults(overrides=[])


def _study_arguments(verb: Any) -> None:
    added = verb("study", "many evaluations from one YAML: plan, run, status, report")
    added.add_argument("action", choices=("plan", "run", "status", "report", "job"))
    added.add_argument("study", type=Path, nargs="?", help="a study's YAML, or its folder once it is planned")
    added.add_argument("overrides", nargs="*", metavar="key=value", help="laid over the YAML; of `job`: the job's id")
    added.add_argument("--out", type=Path, help="folder (default studies/NAME)")
    added.add_argument("--dry-run", action="store_true", help="plan: print what it would be, write nothing")
    added.add_argument(
        "--results", type=Path, metavar="CSV", help="report: a tidy table made elsewhere, in place of a study"
    )
    added.add_argument("--margin", type=float, help="report --results: largest difference that counts as equivalent")
    added.add_argument(
        "--family", metavar="COLUMNS", help="report --results: of Holm's correction (default protocol,metric)"
    )
    added.add_argument("--domains", type=Path, metavar="CSV", help="report --results: pretraining,task,boundary")
    added.add_argument(
        "--primary", metavar="KEY=VALUE,…", help="report --results: the contrast that the answer rests on"
    )
