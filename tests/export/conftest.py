"""One backbone in every form, of a licence that excludes commercial use."""

import pytest
from support.exported import randomised

from ssl_transfer.export.registry import HOMES
from ssl_transfer.export.stage import export_backbone


@pytest.fixture(scope="package")
def licensed():
    return randomised("resnet18,in_channels=1,size=32", licence="cc-by-nc-sa-4.0")


@pytest.fixture(scope="package", params=HOMES)
def exported(request, licensed, tmp_path_factory):
    """Form, folder and answer of an export."""
    folder = tmp_path_factory.mktemp("exports") / request.param
    return request.param, folder, export_backbone(licensed, request.param, folder)
