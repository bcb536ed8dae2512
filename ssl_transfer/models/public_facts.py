"""What public weights were trained on, by their names: domain, method, data and licence, a row for each kind.

Names are those of timm (`resnet50.a1_in1k`: the tag behind the dot says data and method), of the Hugging Face hub
(`OWNER/NAME`), or of files. The first row that matches counts, so rows of a single publisher or data set come before those of
timm's tags.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from ssl_transfer.domains import UNKNOWN


@dataclass(frozen=True)
class PublicFacts:
    """What is known of the training of public weights.

    Attributes:
        domain: Domain of the training images (see `ssl_transfer.domains`), several joined by ` + `; `unknown`.
        method: Method: `supervised`, `dinov2`, …; those of successive trainings joined by ` + `; `unknown`.
        dataset: Data set of the training images; None: not known.
        licence: Licence of the weights; None: not known, it is that of their page.
    """

    domain: str = UNKNOWN
    method: str = UNKNOWN
    dataset: str | None = None
    licence: str | None = None


class _Row(NamedTuple):
    """Names, as a regular expression that is searched in the lower-case name, and their facts."""

    names: str
    domain: str
    method: str
    dataset: str | None = None
    licence: str | None = None


_IN1K, _IN12K, _IN21K = "ImageNet-1k", "ImageNet-12k", "ImageNet-21k"
_NC = "cc-by-nc-4.0"
_NC_ND = "cc-by-nc-nd-4.0"

_ROWS = (
    # histology
    _Row(r"mahmoodlab/uni2-h", "histology", "dinov2", "Mass-340K and others", _NC_ND),
    _Row(r"mahmoodlab/uni\b", "histology", "dinov2", "Mass-100K", _NC_ND),
    _Row(r"mahmoodlab/conch", "histology", "image-text", "image-caption pairs of histology", _NC_ND),
    _Row(r"paige-ai/virchow2", "histology", "dinov2", "slides of MSKCC", _NC_ND),
    _Row(r"paige-ai/virchow", "histology", "dinov2", "slides of MSKCC", "apache-2.0"),
    _Row(r"bioptimus/h-optimus-0", "histology", "dinov2", "500,000 slides", "apache-2.0"),
    _Row(r"bioptimus/", "histology", "dinov2", None, _NC_ND),
    _Row(r"prov-gigapath", "histology", "dinov2", "Prov-Path", "apache-2.0"),
    _Row(r"owkin/phikon-v2", "histology", "dinov2", "PANCAN-XL", _NC_ND),
    _Row(r"owkin/phikon", "histology", "ibot", "TCGA"),
    _Row(r"histai/hibou", "histology", "dinov2", None, "apache-2.0"),
    _Row(r"kaiko-ai/|kaiko_ai", "histology", "dino", "TCGA"),
    _Row(r"1aurent/.*(tcga|crc|kimianet|ctranspath)|ctranspath|kimianet", "histology", UNKNOWN),
    # radiology
    _Row(r"rad-dino-maira-2", "xray/chest", "dinov2", "chest X-rays of several countries", "msrla"),
    _Row(
        r"microsoft/rad-dino|rad_dino|rad-dino",
        "xray/chest",
        "dinov2",
        "BIMCV, CheXpert, MIMIC-CXR, NIH-CXR, PadChest",
        "mit",
    ),
    _Row(r"radimagenet", "ct + mr + ultrasound", "supervised", "RadImageNet"),
    _Row(r"raidium/curia", "ct + mr", "dinov2", "exams of one hospital"),
    _Row(r"torchxrayvision|xraysiglip|cheXagent|biovil|chexzero|/cxr-|elixr", "xray/chest", UNKNOWN),
    # photographs of medicine
    _Row(r"retfound.*(cfp|oct)?|yukunzhou/", "fundus", "mae", "retinal images of Moorfields", _NC),
    _Row(r"flair.*fundus|jusiro2/flair", "fundus", "image-text"),
    _Row(r"derm-foundation|panderm", "dermoscopy", UNKNOWN),
    _Row(r"endofm|endo-fm|gastronet", "endoscopy", UNKNOWN),
    # medicine of every kind: no single domain
    _Row(r"biomedclip|pmc-?clip|medsiglip|medgemma|med-?vit|medclip", UNKNOWN, "image-text"),
    # remote sensing
    _Row(r"sat493m", "satellite", "dinov3", "SAT-493M", "dinov3-license"),
    _Row(r"prithvi|satlas|satmae|scalemae|seco_|ssl4eo|torchgeo/|bigearthnet", "satellite", UNKNOWN),
    # self-supervised on photographs
    _Row(r"eupe_lvd1689m", "photograph", "distillation", "LVD-1689M"),
    _Row(r"lvd1689m", "photograph", "dinov3", "LVD-1689M", "dinov3-license"),
    _Row(r"lvd142m|facebook/dinov2|dinov2_vit", "photograph", "dinov2", "LVD-142M", "apache-2.0"),
    _Row(r"\.dino$|\.fb_dino$|facebook/dino-|^dino_(vit|deit|resnet)", "photograph", "dino", _IN1K, "apache-2.0"),
    _Row(r"in22k_ijepa|ijepa.*22k", "photograph", "ijepa", _IN21K, _NC),
    _Row(r"in1k_ijepa|facebook/ijepa", "photograph", "ijepa", _IN1K, _NC),
    _Row(r"fcmae_ft_in22k_in1k", "photograph", "fcmae + supervised", f"{_IN1K}, {_IN21K}", _NC),
    _Row(r"fcmae_ft_in1k", "photograph", "fcmae + supervised", _IN1K, _NC),
    _Row(r"fcmae", "photograph", "fcmae", _IN1K, _NC),
    _Row(r"\.mae_in1k_ft_in1k", "photograph", "mae + supervised", _IN1K, _NC),
    _Row(r"\.mae$|vit-mae-|mae_pretrain_vit", "photograph", "mae", _IN1K, _NC),
    _Row(r"\.seer$", "web", "swav", "Instagram", "seer-license"),
    _Row(r"\.seer_ft_in1k", "web + photograph", "swav + supervised", f"Instagram, {_IN1K}", "seer-license"),
    # pictures of the web, with their captions or hashtags
    _Row(
        r"openai_ft|laion\w*_ft|laion\w*_augreg_ft|clip_ft_in1k|webli_ft", "web + photograph", "image-text + supervised"
    ),
    _Row(r"\.openai$|openai/clip", "web", "image-text", "WIT-400M", "mit"),
    _Row(r"laion400m", "web", "image-text", "LAION-400M", "mit"),
    _Row(r"laiona", "web", "image-text", "LAION-A", "mit"),
    _Row(r"laion2b|laion/clip", "web", "image-text", "LAION-2B", "mit"),
    _Row(
        r"datacomp|mclip|\.dfn\d|metaclip|webli|siglip|merged2b|cc12m|yfcc15m|tinyclip|mobileclip", "web", "image-text"
    ),
    _Row(r"\.apple_pt|facebook/aimv2|apple/aimv2", "web", "aimv2"),
    _Row(
        r"(swsl|ssl)_(ig1b|yfcc100m)_ft_in1k|wsl_ig1b_ft_in1k|swag_(ft|lc)_in1k",
        "web + photograph",
        "weakly supervised + supervised",
        None,
        _NC,
    ),
    _Row(r"\.sa1b$|facebook/sam-vit|sam_vit_[bhl]_", "photograph", "segment anything", "SA-1B", "apache-2.0"),
    # masked images of large collections, then labels
    _Row(r"mim_(in22k|m38m|m30m)_ft|m30m_ft", "photograph", "mim + supervised"),
    _Row(r"mim_(in22k|m38m)$", "photograph", "mim"),
    _Row(r"/beitv?2?[_-]", "photograph", "mim"),
    # with labels on ImageNet, by timm's tags; `ft` joins successive trainings
    _Row(r"jft_in1k", "web + photograph", "noisy student", f"JFT-300M, {_IN1K}"),
    _Row(r"\.(\w+_)?(in21k|in22k)_ft_in22k_in1k", "photograph", "supervised", f"{_IN21K}, {_IN1K}"),
    _Row(r"\.(\w+_)?(in21k|in22k)_(ft_)?in1k", "photograph", "supervised", f"{_IN21K}, {_IN1K}"),
    _Row(r"\.(\w+_)?in12k_(ft_)?in1k", "photograph", "supervised", f"{_IN12K}, {_IN1K}"),
    _Row(r"\.(\w+_)?(in21k|in22k|inw21k)(_\w+)?$", "photograph", "supervised", _IN21K),
    _Row(r"\.(\w+_)?in12k(_\d+)?$", "photograph", "supervised", _IN12K),
    _Row(r"\.(\w+_)?in1k(_\w+)?$", "photograph", "supervised", _IN1K),
    _Row(r"google/vit-\w+-patch\d+-\d+-in21k", "photograph", "supervised", _IN21K, "apache-2.0"),
    _Row(
        r"google/vit-|microsoft/(resnet|swin)-|facebook/(deit|convnext|regnet)-|torchvision|imagenet1k_v[12]",
        "photograph",
        "supervised",
        _IN1K,
    ),
)


def public_facts(name: str) -> PublicFacts:
    """What is known of public weights by their name: of the first row that matches it, else `unknown`.

    Args:
        name: A name of timm with its tag, a name of the hub with or without `hf-hub:` and `@revision`, or that of a file.

    Example:
        >>> public_facts("timm:vit_large_patch16_dinov3.sat493m").domain, public_facts("hf-hub:MahmoodLab/UNI").domain
        ('satellite', 'histology')
        >>> public_facts("my_weights.pth").domain
        'unknown'
    """
    text = re.sub(r"^(timm|hf-hub|hf_hub|imagenet):", "", str(name).strip().lower()).partition("@")[0]
    text = re.sub(r"\.(pth|pt|bin|safetensors|tar|ckpt|npz)(\.tar)?$", "", text)
    for row in _ROWS:
        if re.search(row.names.lower(), text):
            return PublicFacts(row.domain, row.method, row.dataset, row.licence)
    return PublicFacts()
