"""Miniatures of published archives: their folders, names, label files and mask values, with noise for images."""

from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from ssl_transfer.data.readers.phantom.generate import write_ct

FINDINGS = [
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
]

TISSUES = ["ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"]

TUMOURS = ["glioma", "meningioma", "notumor", "pituitary"]

LESIONS = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]

GRADES = ["none", "mild", "moderate", "severe", "proliferative"]

REGIONS = ["ABDOMEN", "EXTREMITY", "HEAD", "NECK", "PELVIS", "THORAX"]

LINES = ["A172", "BT474", "BV2", "Huh7", "MCF7", "SHSY5Y", "SKOV3", "SkBr3"]

KVASIR = [
    "dyed-lifted-polyps",
    "dyed-resection-margins",
    "esophagitis",
    "normal-cecum",
    "normal-pylorus",
    "normal-z-line",
    "polyps",
    "ulcerative-colitis",
]

BREAST = ["benign", "malignant", "normal"]

CHEXPERT = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
    "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)


def draw(*names, mode="L"):
    """Write an image of noise to each name."""
    for number, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).convert(mode).save(name)


def volume(name, values, dtype=np.int16):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(name)).choice(values, (16, 16, 2)).astype(dtype)
    nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), name)


def write(name, *lines):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text("\n".join(lines) + "\n")


def radnet():
    write_ct(Path("radnet"), patients=12, slices=6, size=32)
    Path("radnet/images").rename("archive")


def pack(name, classes):
    split = {"images": np.zeros((6, 8, 8), np.uint8), "labels": np.arange(6) % len(classes)}
    arrays = {f"{part}_{key}": value + 0 for part in ("train", "val", "test") for key, value in split.items()}
    np.savez(name, class_names=classes, **arrays)


def chestxray14():
    findings = ["No Finding" if n % 4 == 0 else f"{FINDINGS[n % 14]}|{FINDINGS[(n + 5) % 14]}" for n in range(60)]
    names = [f"{n // 2 + 1:08d}_{n % 2:03d}.png" for n in range(60)]
    draw(*(f"ChestX-ray14/images/{name}" for name in names[1:]))
    draw(f"ChestX-ray14/images/{names[0]}", mode="RGBA")  # some are
    head = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage"
    rows = [
        f"{name},{found},{n % 2},{n // 2 + 1},58,M,PA,2682,2749,0.143,0.143,"
        for n, (name, found) in enumerate(zip(names, findings, strict=True))
    ]
    spacing = "[Width,Height],OriginalImagePixelSpacing[x,y],"
    write("ChestX-ray14/Data_Entry_2017.csv", head + spacing, *rows)
    write("ChestX-ray14/test_list.txt", *names[40:])


def chexpert():
    head = f"Path,Sex,Age,Frontal/Lateral,AP/PA,{CHEXPERT}"
    for split, patients in (("train", range(1, 25)), ("valid", range(64541, 64547))):
        names = [f"{split}/patient{p:05d}/study{s}/view1_frontal.jpg" for p in patients for s in (1, 2)]
        draw(*(f"CheXpert-v1.0-small/{name}" for name in names))
        values = [",".join((three * 5)[:14]) for three in (["1.0", "", "-1.0"], ["", "1.0", "0.0"])]
        rows = [f"CheXpert-v1.0-small/{n},Female,68,Frontal,AP,{values[k % 2]}" for k, n in enumerate(names)]
        write(f"CheXpert-v1.0-small/{split}.csv", head, *rows)


def imagenet():
    draw(*(f"imagenet/train/n0144076{c}/n0144076{c}_{n}.JPEG" for c in range(3) for n in range(50)), mode="RGB")
    draw(*(f"imagenet/val/n0144076{c}/ILSVRC2012_val_{c}{n:07d}.JPEG" for c in range(3) for n in range(2)), mode="RGB")


def cxr_pneumonia():
    for split, first in (("train", 1), ("test", 4)):  # persons 4 to 6 are in both
        draw(*(f"chest_xray/{split}/PNEUMONIA/person{n}_virus_{n + 1}.jpeg" for n in range(first, first + 6)))
        draw(*(f"chest_xray/{split}/NORMAL/NORMAL2-IM-{n + 1000}-0001.jpeg" for n in range(first, first + 3)))
        draw(*(f"chest_xray/{split}/NORMAL/IM-0{n + 100}-0001-0002.jpeg" for n in range(first, first + 3)))


def busi():
    root = "Dataset_BUSI_with_GT"
    draw(*(f"{root}/{name}/{name} ({n}).png" for name in BREAST for n in range(1, 8)), mode="RGB")
    for name in BREAST:
        for n in range(1, 8):
            mask = np.zeros((20, 20), bool)
            mask[3:9] = name != "normal"
            Image.fromarray(mask).save(f"{root}/{name}/{name} ({n})_mask.png")
    Image.fromarray(mask.T | (np.arange(20) > 15)).save(f"{root}/benign/benign (4)_mask_1.png")


def mammogram_mias():
    draw(*(f"all-mias/mdb{n:03d}.pgm" for n in range(1, 37)))
    severity = {1: "CIRC B 535 425 197", 2: "ARCH M 300 200 10", 0: "NORM"}
    rows = [f"mdb{n:03d} G {severity[(n + 1) // 2 % 3]}" for n in range(1, 37)]
    write("all-mias/Info.txt", "1st column: reference number", *rows, "mdb001 G MISC M 100 100 9", "mdb003 F MISC B")


def lits():
    for n in range(8):
        folder = f"LiTS/Training Batch {1 + n // 4}"
        volume(f"{folder}/volume-{n}.nii", [-1000, 40, 60])
        volume(f"{folder}/segmentation-{n}.nii", [0, 1, 2], np.uint8)


def brats():
    for n in range(8):
        for sequence in ("flair", "t1", "t1ce", "t2"):
            volume(f"BraTS2021/BraTS2021_{n:05d}/BraTS2021_{n:05d}_{sequence}.nii.gz", range(1000))
        volume(f"BraTS2021/BraTS2021_{n:05d}/BraTS2021_{n:05d}_seg.nii.gz", [0, 1, 2, 4], np.uint8)


def msd_lung():
    for n in range(8):
        volume(f"Task06_Lung/imagesTr/lung_{n:03d}.nii.gz", [-1000, 40])
        volume(f"Task06_Lung/labelsTr/lung_{n:03d}.nii.gz", [0, 1], np.uint8)
        write(f"Task06_Lung/imagesTr/._lung_{n:03d}.nii.gz", "what macOS leaves")


def livecell():
    wells = [(line, well, n) for line in LINES for well in ("A7", "B7", "C7") for n in (1, 2)]
    names = [f"{line}_Phase_{well}_{n}_00d04h00m_{n}.tif" for line, well, n in wells]
    draw(*(f"LIVECell/images/livecell_{'test' if 'C7' in n else 'train_val'}_images/{n}" for n in names))


def brain_mri():
    draw(*(f"brain-tumor-mri-dataset/Training/{c}/Tr-{c[:2]}_{n:04d}.jpg" for c in TUMOURS for n in range(8)))
    draw(*(f"brain-tumor-mri-dataset/Testing/{c}/Te-{c[:2]}_{n:04d}.jpg" for c in TUMOURS for n in range(2)))


def histology_crc():
    draw(*(f"kather/NCT-CRC-HE-100K/{c}/{c}-AAEM{n}.tif" for c in TISSUES for n in range(10)), mode="RGB")
    draw(*(f"kather/CRC-VAL-HE-7K/{c}/{c}-TCGA-{n}.tif" for c in TISSUES for n in range(2)), mode="RGB")


def ham10000():
    rows = [f"HAM_{n // 2:07d},ISIC_{n:07d},{LESIONS[n // 2 % 7]},histo,60.0,male,back" for n in range(84)]
    write("HAM10000/HAM10000_metadata.csv", "lesion_id,image_id,dx,dx_type,age,sex,localization", *rows)
    draw(*(f"HAM10000/HAM10000_images_part_{1 + n % 2}/ISIC_{n:07d}.jpg" for n in range(84)), mode="RGB")


def aptos():
    write("aptos2019/train.csv", "id_code,diagnosis", *(f"{n:012x},{n % 5}" for n in range(35)))
    draw(*(f"aptos2019/train_images/{n:012x}.png" for n in range(35)), mode="RGB")


def malaria():
    for name, patients in (
        ("Parasitized", ("C33P1", "C37BP2", "C68P29N_", "C70P31_", "C71P32", "C72P33N")),
        ("Uninfected", ("C1_", "C2_", "C3_", "C4_", "C118P79", "C119P79")),
    ):
        thin = [f"{patient}{'ThinF' if 'P' in patient else 'thinF'}" for patient in patients]
        draw(*(f"cell_images/{name}/{p}_IMG_2015_cell_{n}.png" for p in thin for n in range(2)), mode="RGB")


def wbc():
    draw(*(f"segmentation_WBC/Dataset 1/{n:03d}.bmp" for n in range(1, 10)), mode="RGB")
    for n in range(1, 10):
        mask = np.random.default_rng(n).choice(np.array([0, 128, 255], np.uint8), (20, 20))
        Image.fromarray(mask).save(f"segmentation_WBC/Dataset 1/{n:03d}.png")


ARCHIVES = {  # by the name of the store; a phantom needs none
    "radnet": radnet,
    "mednist_ct": lambda: pack("mednist_ct.npz", ["abdomen", "chest", "head"]),
    "cells": lambda: draw(*(f"cells/{c}/{n}.png" for c in ("HeLa", "MCF-7", "NCI-H1299") for n in range(7))),
    "kvasir": lambda: draw(*(f"kvasir-dataset-v2/{c}/{n}.jpg" for c in KVASIR for n in range(7)), mode="RGB"),
    **{
        make.__name__: make
        for make in (
            chestxray14,
            chexpert,
            imagenet,
            cxr_pneumonia,
            busi,
            mammogram_mias,
            lits,
            brats,
            msd_lung,
            livecell,
            brain_mri,
            histology_crc,
            ham10000,
            aptos,
            malaria,
            wbc,
        )
    },
}
