"""Known naming conventions: how BIDS, BraTS, nnU-Net and folders of patients name the patient in the path of a file."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Convention:
    """A convention of file names.

    Attributes:
        title: What its patients are called, for messages.
        patients: Function: paths relative to the source -> patient of each file, None where the path does not follow it.
    """

    title: str
    patients: Callable[[Sequence[str]], list[str | None]]


def bids_subjects(files: Sequence[str]) -> list[str | None]:
    """The subject `sub-…` of each path.

    Example:
        >>> bids_subjects(["sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz", "01.nii.gz"])
        ['sub-01', None]
    """
    return [match[1] if (match := BIDS.search(file)) else None for file in files]


def brats_cases(files: Sequence[str]) -> list[str | None]:
    """The case of each BraTS volume, without its sequence; since 2023, without its time point too.

    Example:
        >>> brats_cases(["BraTS20_Training_001_t1ce.nii", "BraTS-GLI-00005-101-t2f.nii.gz", "x_t1.nii"])
        ['BraTS20_Training_001', 'BraTS-GLI-00005', None]
    """
    return [_brats_case(stem(file)) for file in files]


def _brats_case(name: str) -> str | None:
    match = BRATS.fullmatch(name)
    if match is None:
        return None
    dated = BRATS_2023.fullmatch(match[1])
    return dated[1] if dated else match[1]


def nnunet_cases(files: Sequence[str]) -> list[str | None]:
    """The case of each file `CASE_0000.nii.gz`, `CASE_0001.nii.gz`, …: one number per channel, counted from 0 in every case.

    Numbers that do not restart with every case are no channels, and no file then follows the convention.

    Example:
        >>> nnunet_cases(["imagesTr/a_0001_0000.nii.gz", "imagesTr/a_0001_0001.nii.gz"])
        ['a_0001', 'a_0001']
        >>> nnunet_cases(["lung_0001.nii.gz", "lung_0002.nii.gz"])
        [None, None]
    """
    names = [None if LABELS.search(file) else CHANNEL.fullmatch(stem(file)) for file in files]
    channels: dict[str, set[int]] = defaultdict(set)
    for match in names:
        if match:
            channels[match[1]].add(int(match[2]))
    [(usual, count)] = Counter(frozenset(numbers) for numbers in channels.values()).most_common(1) or [(frozenset(), 0)]
    restart = (
        usual == frozenset(range(len(usual))) and 1 <= len(usual) <= MOST_CHANNELS and count >= 0.9 * len(channels)
    )
    in_its_folders = all(FOLDERS.search(file) for file in files)
    if not restart or not (in_its_folders or (len(channels) > 1 and len(usual) > 1)):
        return [None] * len(files)
    cases = [match and match[1] for match in names]
    return [stem(file) if LABELS.search(file) else case for file, case in zip(files, cases, strict=True)]


def patient_folders(files: Sequence[str]) -> list[str | None]:
    """The folder of each file that is named like a patient: `patient_07/`, `case12/`, or a name and a date of birth.

    Example:
        >>> patient_folders(["train/patient_07/a.png", "Doe_Jane_19700101/b.png", "benign/c.png"])
        ['patient_07', 'Doe_Jane_19700101', None]
    """
    return [
        match[1] if (match := PATIENT_FOLDER.search(file) or PERSON_FOLDER.search(file)) else None for file in files
    ]


CONVENTIONS = (
    Convention("the BIDS subjects (sub-…) in the file names", bids_subjects),
    Convention("the BraTS cases in the file names", brats_cases),
    Convention("the nnU-Net cases in the file names (CASE_0000, CASE_0001, …: channels of one case)", nnunet_cases),
    Convention("the folders that are named like patients", patient_folders),
)
