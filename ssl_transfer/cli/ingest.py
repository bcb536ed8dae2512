"""`ssl-transfer ingest`: files in, image store out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssl_transfer.cli.verb import Verb
from ssl_transfer.errors import UsageError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of `ingest`."""
    parser.add_argument("source", help="a file, a folder, or phantom:ct, phantom:cells, phantom:photographs")
    parser.add_argument("--out", type=Path, required=True, metavar="STORE")
    parser.add_argument("--format", default="auto", choices=("auto", "dicom", "nifti", "images", "npz"))
    parser.add_argument("--labels", type=Path, metavar="CSV", help="columns to join to the rows")
    parser.add_argument("--label-key", choices=("patient", "series", "file"), help="the CSV's key column")
    parser.add_argument(
        "--masks", metavar="PATH|PATTERN", help="label volumes or mask images; fields {stem} {parent} {number}"
    )
    parser.add_argument("--mask-names", metavar="JSON|NAMES", help='{"1": "liver"} in a file, or liver,lesion')
    parser.add_argument("--size", type=int, metavar="PX", help="height and width (default: the most common)")
    parser.add_argument("--channels", type=int, choices=(1, 3), help="default 3 only if all images are colour")
    parser.add_argument("--modality", help="keep only this DICOM modality, for example CT")
    parser.add_argument("--domain", help="for example ct, xray/chest, microscopy/cell_line")
    parser.add_argument("--axis", choices=("axial", "coronal", "sagittal"), default="axial", help="slices of a volume")
    parser.add_argument("--compress", action="store_true", help="blosc2 lz4 in place of plain .npy")
    parser.add_argument("--resplit", action="store_true", help="draw splits anew even if the source has some")
    parser.add_argument("--split", default="0.7,0.15,0.15", metavar="TRAIN,VAL,TEST", help="shares of the patients")
    parser.add_argument("--seed", type=int, default=0, help="of the splits")
    parser.add_argument("--max-refused", type=float, default=0.05, metavar="SHARE", help="unreadable files tolerated")
    parser.add_argument("--workers", type=int, help="processes that decode (default: as many as cores)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ssl_transfer.data.ingest.stage import ingest
    from ssl_transfer.data.inspect import store_summary

    try:
        shares = tuple(float(share) for share in options.split.split(","))
    except ValueError:
        shares = ()
    if len(shares) != 3 or not all(0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        raise UsageError(f"--split {options.split}: expected three shares that sum to 1, for example 0.7,0.15,0.15.")
    names = (
        "format",
        "labels",
        "label_key",
        "size",
        "channels",
        "modality",
        "domain",
        "masks",
        "mask_names",
        "axis",
        "compress",
        "resplit",
        "seed",
        "max_refused",
        "workers",
    )
    chosen = {name: getattr(options, name) for name in names}
    store = ingest(options.source, options.out, split_shares=shares, **chosen)
    return store_summary(store)


VERB = Verb("files in, image store out", arguments, run)
