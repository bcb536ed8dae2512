"""What is known of public weights by their names: domain, method, data set, licence."""

import pytest
import timm

from ssl_transfer.domains import Domain, boundary
from ssl_transfer.models.public_facts import PublicFacts, public_facts

EXPECTED = {  # name -> domain, method, data set
    "resnet50.a1_in1k": ("photograph", "supervised", "ImageNet-1k"),
    "timm:convnext_tiny.fb_in22k": ("photograph", "supervised", "ImageNet-21k"),
    "timm/convnext_tiny.fb_in22k_ft_in1k": ("photograph", "supervised", "ImageNet-21k, ImageNet-1k"),
    "vit_small_patch16_224.augreg_in21k_ft_in1k": ("photograph", "supervised", "ImageNet-21k, ImageNet-1k"),
    "convnext_tiny.in12k_ft_in1k_384": ("photograph", "supervised", "ImageNet-12k, ImageNet-1k"),
    "convnextv2_tiny.fcmae": ("photograph", "fcmae", "ImageNet-1k"),
    "convnextv2_tiny.fcmae_ft_in22k_in1k_384": ("photograph", "fcmae + supervised", "ImageNet-1k, ImageNet-21k"),
    "vit_base_patch16_224.mae": ("photograph", "mae", "ImageNet-1k"),
    "vit_base_patch16_224.dino": ("photograph", "dino", "ImageNet-1k"),
    "vit_small_patch14_dinov2.lvd142m": ("photograph", "dinov2", "LVD-142M"),
    "vit_small_patch14_reg4_dinov2.lvd142m": ("photograph", "dinov2", "LVD-142M"),
    "vit_small_patch16_dinov3.lvd1689m": ("photograph", "dinov3", "LVD-1689M"),
    "vit_large_patch16_dinov3.sat493m": ("satellite", "dinov3", "SAT-493M"),
    "hf-hub:facebook/dinov3-vitl16-pretrain-sat493m@main": ("satellite", "dinov3", "SAT-493M"),
    "dinov3_vits16_pretrain_lvd1689m-08c60483.pth": ("photograph", "dinov3", "LVD-1689M"),
    "dinov2_vits14_reg4_pretrain.pth": ("photograph", "dinov2", "LVD-142M"),
    "vit_base_patch32_clip_224.laion2b": ("web", "image-text", "LAION-2B"),
    "vit_base_patch32_clip_224.openai": ("web", "image-text", "WIT-400M"),
    "vit_base_patch16_siglip_224.webli": ("web", "image-text", None),
    "vit_base_patch32_clip_224.laion2b_ft_in12k_in1k": ("web + photograph", "image-text + supervised", None),
    "resnet50.fb_swsl_ig1b_ft_in1k": ("web + photograph", "weakly supervised + supervised", None),
    "vit_base_patch16_224.sam_in1k": ("photograph", "supervised", "ImageNet-1k"),
    "samvit_base_patch16.sa1b": ("photograph", "segment anything", "SA-1B"),
    "hf-hub:MahmoodLab/UNI": ("histology", "dinov2", "Mass-100K"),
    "hf-hub:paige-ai/Virchow2": ("histology", "dinov2", "slides of MSKCC"),
    "prov-gigapath/prov-gigapath": ("histology", "dinov2", "Prov-Path"),
    "hf-hub:microsoft/rad-dino": ("xray/chest", "dinov2", "BIMCV, CheXpert, MIMIC-CXR, NIH-CXR, PadChest"),
    "RadImageNet-ResNet50_notop.pth": ("ct + mr + ultrasound", "supervised", "RadImageNet"),
    "raidium/curia": ("ct + mr", "dinov2", "exams of one hospital"),
    "YukunZhou/RETFound_mae_natureCFP": ("fundus", "mae", "retinal images of Moorfields"),
    "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224": ("unknown", "image-text", None),
    "backbone_epoch_300.pth": ("unknown", "unknown", None),
    "resnet50": ("unknown", "unknown", None),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_name_of_public_weights_says_what_they_were_trained_on(name):
    facts = public_facts(name)
    assert (facts.domain, facts.method, facts.dataset) == EXPECTED[name]


def test_licences_that_exclude_commercial_use_are_stated():
    for name in ("MahmoodLab/UNI2-h", "vit_base_patch16_224.mae", "convnextv2_tiny.fcmae"):
        assert "nc" in public_facts(name).licence.split("-")
    assert public_facts("vit_small_patch16_dinov3.lvd1689m").licence == "dinov3-license"


def test_every_domain_is_one_of_the_package_and_remote_sensing_is_far_from_photographs():
    for domain, _, _ in EXPECTED.values():
        for part in domain.split(" + "):
            Domain.parse(part)
    assert boundary(Domain("satellite"), Domain("photograph")) == boundary(Domain("satellite"), Domain("ct")) == "hard"
    assert boundary(Domain("web"), Domain("photograph")) == "soft"
    assert boundary(Domain.parse(PublicFacts().domain), Domain("ct")) == "unknown"


def test_nine_in_ten_of_the_weights_of_timm_are_known():
    names = timm.list_pretrained()
    unknown = [name for name in names if public_facts(name).domain == "unknown"]
    assert len(names) > 1000 and len(unknown) < 0.1 * len(names), sorted({name.partition(".")[2] for name in unknown})
    assert not [name for name in names if "sat" in name.partition(".")[2] and public_facts(name).domain != "satellite"]
