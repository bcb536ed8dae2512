"""Words that name no person: headings of columns that describe images, and values of such columns.

The lists are deliberately short. A column with an unknown heading and an unknown value is hashed, which keeps equal values equal;
a word that is also a common family name (long, small, white, brown, fair) is not among the values.
"""

from __future__ import annotations

import re


def _words(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


HEADINGS = _words(  # of columns whose texts are stored as they are, unless they look like ids, dates, names or free text
    "age sex gender weight height size bmi smoker smoking race ethnicity handedness position positioning orientation view",
    "projection plane axis side laterality region anatomy anatomic body bodypart part location quadrant zone lobe segment",
    "level organ tissue gland bone joint vessel eye breast lung liver kidney heart brain chest skin class classes category",
    "label labels target dx diagnosis diagnoses disease pathology histology histologic morphology subtype type kind species",
    "strain cell lesion tumor tumour cancer finding findings abnormality malignancy nodule mass calcification effusion",
    "edema fracture opacity condition comorbidity symptom biopsy mutation receptor density birads pirads lirads lungrads",
    "tirads gleason isup stage staging grade severity score rating risk status outcome response treatment therapy surgery",
    "implant contrast agent dose phase timepoint visit modality sequence series protocol weighting acquisition scanner",
    "device machine model vendor manufacturer detector field strength kernel filter reconstruction resolution magnification",
    "stain staining marker channel objective format compression site center centre dataset source cohort collection",
    "database group arm fold batch subset split partition version quality artifact artefact noise blur visibility adequacy",
    "difficulty unit units count number order flag is has truth gt groundtruth prediction consensus",
    "localization localisation shape margin margins distribution composition texture categories provider survival fitzpatrick",
)
WORDS = _words(  # of values that are stored as they are under any heading
    "yes no true false positive negative pos neg present absent normal abnormal unknown uncertain unclear indeterminate",
    "other others none missing any all both mixed not non without with and or of the in for to ja nein ill well healthy",
    "sick diseased case control test train training val valid validation testing male female man woman boy girl diverse",
    "adult child infant left right bilateral unilateral upper lower middle mid central peripheral anterior posterior",
    "superior inferior medial lateral proximal distal ap pa ll rl lat frontal oblique axial coronal sagittal transverse cc mlo",
    "ml lm xccl supine prone erect low high medium moderate mild severe minimal large larger smaller tiny first second",
    "third last lobe early late acute chronic recurrent residual primary secondary metastatic metastasis metastases benign",
    "malignant suspicious tumor tumour cancer carcinoma adenocarcinoma sarcoma lymphoma melanoma glioma glioblastoma",
    "meningioma adenoma polyp cyst lesion mass node nodule nodules lymph calcification calcifications opacity consolidation",
    "effusion edema oedema pneumonia pneumothorax atelectasis cardiomegaly emphysema fibrosis hernia infiltration",
    "thickening fracture hemorrhage haemorrhage bleeding infarct ischemia stroke aneurysm stenosis thrombus embolism",
    "infection covid tuberculosis tb inflammation necrosis enhancing nonenhancing background foreground pleural finding",
    "findings keratosis nevus naevus dermatofibroma vascular basal squamous ductal lobular invasive situ liver spleen",
    "kidney kidneys lung lungs heart brain bladder prostate pancreas stomach colon rectum bowel breast bone skin eye retina",
    "thyroid uterus ovary esophagus oesophagus trachea aorta muscle fat vein artery spine pelvis abdomen thorax chest neck",
    "knee hip shoulder elbow wrist ankle extremity hand foot skull cervical thoracic lumbar rib ct mr mri xr xray cr dx mg",
    "us pet spect nm ultrasound dwi adc flair swi tse gre bold dti epi stir t1w t2w t1ce t1gd pdw fse mprage arterial",
    "venous portal delayed native pre post plain contrast ihc dapi gfp cy3 cy5 brightfield phase fluorescence siemens",
    "philips ge canon toshiba hitachi hologic fujifilm fuji agfa carestream konica kodak varian shimadzu esaote samsung bi",
    "pi rads birads pirads lirads er pr her2 ki67 idh mgmt wildtype wt mutant mutated grade stage class type group level",
    "score category cell view site center centre scanner visit fold batch part arm baseline followup follow excellent",
    "adequate inadequate",
)
CODE = re.compile(r"[a-z]?(?:0|[1-9]\d{0,2})[a-z]?|[a-z]|(?:i{1,3}|iv|vi{0,3}|ix|x)[a-c]?")  # T1, 3b, G, iv
PARTS = re.compile(r"[^\W_]+")
PERSONAL = re.compile(
    r"\^|\b(?:DR|PROF)\.\s+\w|\b(?:Dr|Prof|Mr|Mrs|Ms|Sr|PD|Priv|Hr|Fr)\.\s*\w|\b(?:Dr|Prof|Mrs|Herr|Frau|Doctor|Professor)\s+[A-Z]"
)


def is_plain(value: str) -> bool:
    """Whether a value consists of known words, codes such as T1 or IIb, and numbers of up to three digits.

    Example:
        >>> is_plain("Grade IIb"), is_plain("upper lobe, left"), is_plain("mass|node 3"), is_plain("Miller")
        (True, True, True, False)
    """
    return all(part in WORDS or CODE.fullmatch(part) for part in PARTS.findall(value.lower()))


def is_personal(value: str) -> bool:
    """Whether a value is written like the name of a person: with a title, or with the caret of DICOM.

    Example:
        >>> is_personal("Dr. Miller"), is_personal("MILLER^JANE"), is_personal("DR chest")
        (True, True, False)
    """
    return PERSONAL.search(value) is not None
