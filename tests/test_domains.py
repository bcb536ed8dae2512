"""Domains and the boundary between two of them."""

import itertools

import pytest

from ssl_transfer.domains import DICOM_MODALITIES, FAMILIES, Domain, boundary
from ssl_transfer.errors import RecipeError


def between(source: str, target: str) -> str:
    return boundary(Domain.parse(source), Domain.parse(target))


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("ct", "ct", "none"),
        ("ct/head", "ct/thorax", "none"),
        ("ct", "xray/chest", "soft"),
        ("photograph", "ct", "hard"),
        ("microscopy/cell_line", "ct", "hard"),
        ("photograph", "fundus", "hard"),
        ("unknown", "ct", "unknown"),
        ("ct", "unknown", "unknown"),
        ("unknown", "unknown", "unknown"),
    ],
)
def test_the_boundary_between_two_domains(source, target, expected):
    assert between(source, target) == expected


@pytest.mark.parametrize(("one", "other"), itertools.combinations(FAMILIES, 2))
def test_a_boundary_is_the_same_from_both_sides(one, other):
    assert between(one, other) == between(other, one)


@pytest.mark.parametrize("text", ["ct", "ct/head", "microscopy/cell_line", "xray/chest/frontal"])
def test_a_domain_is_written_as_it_was_read(text):
    assert str(Domain.parse(text)) == text


def test_case_and_space_do_not_make_another_domain():
    assert Domain.parse(" CT/Head ") == Domain.parse("ct/head")


def test_an_unknown_modality_is_answered_with_the_nearest():
    with pytest.raises(RecipeError, match=r"'xrey/chest': no modality is called 'xrey'\. Did you mean 'xray'\?"):
        Domain.parse("xrey/chest")


@pytest.mark.parametrize("code", DICOM_MODALITIES)
def test_every_dicom_modality_leads_to_a_family(code):
    assert DICOM_MODALITIES[code] in FAMILIES
