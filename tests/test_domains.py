"""Domains and the boundary between two of them."""

import itertools
import re

import pytest
from support.command_line import ROOT

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
        ("fluorescence/cell_line", "ct", "hard"),
        ("fluorescence/cell_line", "brightfield/blood", "soft"),
        ("phase_contrast/cell_line", "fluorescence/cell_line", "soft"),
        ("brightfield/blood", "histology/colon", "soft"),
        ("brightfield/blood", "brightfield/cell_line", "none"),
        ("microscopy/cell_line", "ct", "hard"),
        ("microscopy/cell_line", "fluorescence", "unknown"),
        ("microscopy/cell_line", "microscopy/blood", "unknown"),
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


@pytest.mark.parametrize("text", ["ct", "ct/head", "fluorescence/cell_line", "xray/chest/frontal"])
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


def test_a_family_in_place_of_a_modality_is_answered_with_the_modalities_to_type():
    expected = "--domain fluorescence/blood, brightfield/blood, phase_contrast/blood or histology/blood."
    assert Domain.parse("microscopy/blood").open_modality.endswith(expected)
    assert Domain.parse("fluorescence/blood").open_modality is None


def test_the_table_of_the_documentation_has_every_modality_and_its_family():
    rows = (ROOT / "docs/data.md").read_text().partition("| family | modalities |")[2].partition("\n\n")[0]
    families = [re.findall(r"`(\w+)`", row) for row in rows.splitlines()[2:]]
    assert sorted(itertools.chain(*families)) == sorted(set(FAMILIES) - {"microscopy", "unknown"})
    assert all(len({FAMILIES[name] for name in family}) == 1 for family in families)
