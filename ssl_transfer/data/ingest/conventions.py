"""Known naming conventions: how BIDS, BraTS, nnU-Net and folders of patients name the patient in the path of a file."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ssl_transfer.data.readers.matching import stem

BIDS = re.compile(r"(?:^|/)(sub-[A-Za-z0-9]+)(?=[_/.])")
BRATS = re.compile(r"(brats.*?)(?:[-_](?:t1ce|t1gd|t1c|t1n|t1w|t1|t2w|t2f|t2|flair|seg))?", re.IGNORECASE)
BRATS_2023 = re.compile(r"(brats(?:-[a-z]+)+-\d{4,5})-\d{1,3}", re.IGNORECASE)  # patient, then time point
CHANNEL = re.compile(r"(.+)_(\d{4})")
FOLDERS = re.compile(r"(?:^|/)(?:images|labels)T[rs]/")
LABELS = re.compile(r"(?:^|/)labelsT[rs]/")
MOST_CHANNELS = 32
PATIENT_FOLDER = re.compile(
    r"(?:^|/)((?:patient|pat|subject|subj|participant|volunteer|person|case|pt)[ _-]?[a-z]{0,3}\d[^/]*)(?=/)",
    re.IGNORECASE,
)
BIRTH_DATE = r"(?:19|20)\d\d[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12]\d|3[01])"
WORD = r"[^\W\d_]+[_ .,^-]+"
PERSON_FOLDER = re.compile(rf"(?:^|/)({WORD}(?:{WORD})+{BIRTH_DATE})(?=/)")  # SURNAME_GIVEN_19700101


Rule = Callable[[str], "str | None"]  # path -> patient


@dataclass(frozen=True)
class Convention:
    """A convention of file names.

    Attributes:
        title: What its patients are called, for messages.
        rule: Function: all paths, relative to the source -> the function that finds the patient of one of them, None where the
            path does not follow the convention.
    """

    title: str
    rule: Callable[[Iterable[str]], Rule]


def bids_subject(file: str) -> str | None:
    """The subject `sub-…` of a path.

    Example:
        >>> bids_subject("sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz"), bids_subject("01.nii.gz")
        ('sub-01', None)
    """
    return match[1] if (match := BIDS.search(file)) else None


def brats_case(file: str) -> str | None:
    """The case of a BraTS volume, without its sequence; since 2023, without its time point too.

    Example:
        >>> brats_case("BraTS20_Training_001_t1ce.nii"), brats_case("BraTS-GLI-00005-101-t2f.nii.gz"), brats_case("x_t1.nii")
        ('BraTS20_Training_001', 'BraTS-GLI-00005', None)
    """
    match = BRATS.fullmatch(stem(file))
    if match is None:
        return None
    dated = BRATS_2023.fullmatch(match[1])
    return dated[1] if dated else match[1]


def nnunet_rule(files: Iterable[str]) -> Rule:
    """The cases of files `CASE_0000.nii.gz`, `CASE_0001.nii.gz`, …: one number per channel, counted from 0 in every case.

    Numbers that do not restart with every case are no channels, and no file then follows the convention.

    Example:
        >>> nnunet_rule(["imagesTr/a_0001_0000.nii.gz", "imagesTr/a_0001_0001.nii.gz"])("imagesTr/a_0001_0001.nii.gz")
        'a_0001'
        >>> nnunet_rule(["lung_0001.nii.gz", "lung_0002.nii.gz"])("lung_0001.nii.gz")
    """
    cases, channels, in_its_folders = array("q"), array("q"), True
    for file in files:
        in_its_folders = in_its_folders and FOLDERS.search(file) is not None
        if match := _channel(file):
            cases.append(hash(match[1]))
            channels.append(1 << min(int(match[2]), MOST_CHANNELS))  # one bit for all beyond
    if not cases:
        return lambda file: None
    order = np.argsort(np.asarray(cases), kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(np.asarray(cases)[order]) != 0))
    sets = np.bitwise_or.reduceat(np.asarray(channels)[order], starts)
    values, counts = np.unique(sets, return_counts=True)
    usual, count = int(values[counts.argmax()]), int(counts.max())  # channels of most cases, a bit each
    restart = usual & (usual + 1) == 0 and usual < 1 << MOST_CHANNELS and count >= 0.9 * len(sets)
    if not restart or not (in_its_folders or (len(sets) > 1 and usual > 1)):
        return lambda file: None
    return _nnunet_case


def _channel(file: str) -> re.Match[str] | None:
    return None if LABELS.search(file) else CHANNEL.fullmatch(stem(file))


def _nnunet_case(file: str) -> str | None:
    if LABELS.search(file):
        return stem(file)
    match = _channel(file)
    return match and match[1]


def patient_folder(file: str) -> str | None:
    """The folder of a file that is named like a patient: `patient_07/`, `case12/`, or a name and a date of birth.

    Example:
        >>> [patient_folder(f) for f in ("train/patient_07/a.png", "Doe_Jane_19700101/b.png", "benign/c.png")]
        ['patient_07', 'Doe_Jane_19700101', None]
    """
    return match[1] if (match := PATIENT_FOLDER.search(file) or PERSON_FOLDER.search(file)) else None


CONVENTIONS = (
    Convention("the BIDS subjects (sub-…) in the file names", lambda files: bids_subject),
    Convention("the BraTS cases in the file names", lambda files: brats_case),
    Convention("the nnU-Net cases in the file names (CASE_0000, CASE_0001, …: channels of one case)", nnunet_rule),
    Convention("the folders that are named like patients", lambda files: patient_folder),
)
