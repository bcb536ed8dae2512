"""The body of the CT phantom: where its organs lie, how dense they are, and how patients differ.

One body runs from the vertex of the head (z = 0) to the ankles (z = 1700), in millimetres of an average adult, with
x towards the patient's left (right in the image) and y towards the back (down in the image). Patients differ in
stature, girth, fat, contrast phase, arms and noise. `ct` scans it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Region, as DICOM's BodyPartExamined has it -> top and bottom in the body, mm below the vertex.
REGIONS = {
    "HEAD": (18, 172),
    "NECK": (172, 318),
    "THORAX": (318, 545),
    "ABDOMEN": (545, 790),
    "PELVIS": (790, 985),
    "EXTREMITY": (1010, 1640),
}


class Organ(NamedTuple):
    """An ellipsoid of one tissue; `tube` is 2 for round ends and larger for flat ones; `paired` mirrors it in x."""

    tissue: str
    x: float
    y: float
    z: float
    rx: float
    ry: float
    rz: float
    angle: float = 0.0  # degrees, from the x axis towards the back
    tube: float = 2.0
    paired: bool = False


# Drawn in this order, so later ones lie on top.
HEAD = (
    Organ("soft", 0, -55, 135, 50, 32, 45, tube=4),
    Organ("cortical", 0, -48, 128, 34, 28, 32, tube=4),  # facial skeleton, hollowed by what follows
    Organ("fat", 33, -64, 112, 19, 20, 19, paired=True),
    Organ("fluid", 33, -68, 112, 12, 12, 12, paired=True),  # eyes
    Organ("gas", 0, -60, 122, 12, 19, 24, tube=4),
    Organ("gas", 26, -48, 136, 12, 15, 16, tube=4, paired=True),
    Organ("gas", 12, -78, 95, 9, 5, 13, paired=True),
    Organ("petrous", 38, 12, 126, 25, 8, 11, angle=30, paired=True),
    Organ("gas", 56, 28, 134, 9, 10, 12, paired=True),  # mastoid cells
    Organ("gas", 0, -14, 152, 10, 8, 30, tube=4),
    Organ("muscle", 20, 48, 172, 17, 14, 32, tube=4, paired=True),
)
BRAIN = (
    Organ("white", 27, 0, 62, 19, 52, 34, paired=True),
    Organ("fluid", 11, -20, 72, 5, 19, 18, angle=15, paired=True),  # lateral ventricles
    Organ("fluid", 17, 24, 74, 6, 17, 16, angle=-25, paired=True),
    Organ("fluid", 0, 6, 90, 3, 12, 14),
    Organ("fluid", 0, 38, 120, 7, 6, 9),
    Organ("blood", 0, 0, 50, 1.5, 78, 42, tube=4),  # falx and sagittal sinus
)
NECK = (
    Organ("fat", 0, -10, 250, 42, 30, 75, tube=4),
    Organ("muscle", 30, -16, 240, 9, 18, 70, angle=-25, tube=4, paired=True),  # sternocleidomastoid
    Organ("muscle", 22, 44, 250, 22, 13, 80, angle=-15, tube=4, paired=True),
    Organ("blood", 25, -4, 245, 4.5, 4.5, 90, tube=8, paired=True),  # carotids
    Organ("blood", 33, -2, 245, 6, 5.5, 85, tube=8, paired=True),  # jugular veins
    Organ("soft", 0, -20, 215, 20, 16, 32, tube=4),
    Organ("hyoid", 14, -33, 205, 9, 3, 6, angle=50, paired=True),
    Organ("thyroid", 14, -24, 270, 8, 12, 22, paired=True),
    Organ("gas", 0, -17, 270, 9, 9, 130, tube=8),  # trachea
    Organ("soft", 3, -3, 300, 6, 5, 90, tube=8),
)
GIRDLE = (
    Organ("cancellous", 168, 12, 326, 23, 23, 24, paired=True),
    Organ("cortical", 128, 22, 335, 12, 17, 20, angle=-30, paired=True),
    Organ("muscle", 150, 40, 345, 36, 26, 60, paired=True),
    Organ("cortical", 112, 58, 365, 42, 4, 62, angle=-38, tube=4, paired=True),  # scapula
    Organ("cortical", 32, -48, 315, 22, 6, 10, angle=20, paired=True),
    Organ("cortical", 80, -34, 305, 34, 6, 10, angle=12, paired=True),
    Organ("cortical", 130, -22, 300, 26, 6, 9, angle=12, paired=True),
    Organ("cancellous", 0, -101, 430, 20, 6, 105, tube=6),  # sternum
)
THORAX = (
    Organ("lung", 70, -2, 440, 58, 82, 148, tube=3.2, paired=True),
    Organ("soft", 0, -50, 380, 22, 34, 60, tube=4),
    Organ("fat", 0, -62, 420, 17, 24, 80, tube=4),
    Organ("heart", 26, -42, 490, 66, 48, 66, angle=30, tube=3),
    Organ("blood", 34, -44, 492, 24, 18, 36, angle=30),
    Organ("blood", -18, -36, 484, 18, 16, 34),
    Organ("blood", 6, -16, 378, 15, 30, 12, angle=-35),  # aortic arch
    Organ("blood", -10, -34, 412, 15, 15, 34, tube=4),
    Organ("blood", 14, -38, 425, 14, 14, 24, angle=30),
    Organ("blood", 26, -14, 430, 24, 8, 12, angle=-20),
    Organ("blood", -30, -14, 432, 24, 7, 12, angle=15),
    Organ("blood", -30, -28, 390, 8, 8, 55, tube=8),
    Organ("gas", 0, -4, 370, 9, 8, 60, tube=8),
    Organ("gas", 17, 2, 432, 11, 6, 14, paired=True),
    Organ("soft", 8, 18, 440, 8, 6, 120, tube=8),
    Organ("blood", 24, 38, 470, 12, 12, 92, tube=8),
)
ABDOMEN = (
    Organ("soft", 66, -36, 600, 50, 40, 62, angle=25),  # stomach
    Organ("gas", 62, -60, 592, 28, 15, 38, angle=10),
    Organ("spleen", 104, 34, 590, 26, 50, 58, angle=-12),
    Organ("liver", 8, -52, 572, 72, 32, 52, angle=-8),
    Organ("liver", -76, -6, 592, 72, 84, 92, tube=2.6),
    Organ("vein", -42, -18, 575, 30, 5, 22, angle=40),
    Organ("gallbladder", -52, -48, 642, 14, 20, 26, angle=30),
    Organ("muscle", 20, 48, 560, 9, 12, 60, paired=True),
    Organ("soft", 12, -12, 642, 55, 11, 22, angle=-12),  # pancreas
    Organ("kidney", 62, 36, 662, 26, 31, 56, angle=50),
    Organ("kidney", -62, 36, 676, 26, 31, 56, angle=-50),
    Organ("fat", 54, 32, 662, 11, 12, 26, angle=50),
    Organ("fat", -54, 32, 676, 11, 12, 26, angle=-50),
    Organ("vein", -24, 8, 660, 12, 9, 170, tube=8),
    Organ("blood", 14, 10, 665, 11, 11, 118, tube=8),
    Organ("blood", 16, 12, 815, 7, 7, 40, tube=4, paired=True),
    Organ("muscle", 40, 36, 765, 23, 24, 115, angle=20, paired=True),  # psoas
    Organ("muscle", 38, 76, 690, 32, 19, 190, angle=-8, tube=6, paired=True),
)
PELVIS = (
    Organ("muscle", 74, 66, 878, 66, 36, 88, angle=-32, tube=4, paired=True),  # gluteal
    Organ("fat", 60, 40, 925, 26, 20, 40, paired=True),
    Organ("muscle", 82, 0, 840, 24, 44, 55, angle=45, tube=4, paired=True),
    Organ("cortical", 86, 10, 830, 58, 8, 68, angle=-48, tube=3, paired=True),  # iliac wings
    Organ("cancellous", 86, 10, 830, 50, 4, 60, angle=-48, tube=3, paired=True),
    Organ("cortical", 0, 58, 848, 50, 26, 50, tube=3),
    Organ("cancellous", 0, 58, 848, 45, 20, 46, tube=3),
    Organ("nerve", 0, 70, 848, 12, 5, 46),
    Organ("cortical", 84, 2, 908, 36, 34, 30, tube=3, paired=True),  # acetabulum
    Organ("muscle", 96, 0, 905, 27, 27, 26, paired=True),
    Organ("cancellous", 96, 0, 905, 25, 25, 25, paired=True),  # femoral heads
    Organ("cancellous", 120, 6, 928, 34, 13, 16, angle=12, paired=True),
    Organ("cancellous", 140, 12, 930, 19, 21, 26, paired=True),
    Organ("cortical", 30, -40, 945, 36, 9, 18, angle=25, paired=True),  # pubis
    Organ("cortical", 62, 40, 950, 17, 22, 32, angle=-25, paired=True),
    Organ("cancellous", 62, 40, 950, 11, 16, 26, angle=-25, paired=True),
    Organ("cancellous", 0, 78, 915, 12, 9, 26),  # coccyx
    Organ("bladder", 0, -22, 905, 44, 34, 42, tube=2.5),
    Organ("soft", 0, 16, 915, 28, 17, 34),
    Organ("soft", 0, 48, 905, 22, 19, 70, tube=4),
    Organ("gas", 0, 45, 900, 11, 9, 40),
)

# Outlines of the muscles, half axes in mm over z; fat and skin come on top.
TRUNK = np.array(
    [  # z, half width, half depth
        (0, 8, 10),
        (6, 38, 48),
        (18, 55, 68),
        (40, 68, 84),
        (80, 76, 96),
        (120, 74, 95),
        (150, 66, 88),
        (172, 60, 78),
        (195, 56, 62),
        (220, 55, 58),
        (255, 60, 58),
        (278, 92, 66),
        (296, 150, 80),
        (318, 186, 92),
        (345, 190, 102),
        (380, 160, 107),
        (460, 154, 110),
        (560, 148, 108),
        (650, 142, 104),
        (740, 140, 102),
        (800, 156, 104),
        (860, 168, 108),
        (925, 172, 108),
        (965, 166, 102),
        (1000, 150, 80),
        (1012, 100, 30),
        (1013, 0, 0),
    ]
)
LIMB = np.array(
    [  # share of the way from hip to ankle, radius
        (-0.15, 70),
        (0.0, 80),
        (0.2, 72),
        (0.4, 58),
        (0.5, 56),
        (0.62, 56),
        (0.75, 46),
        (0.92, 33),
        (1.0, 34),
    ]
)
BRAIN_CASE = np.array(
    [  # z, y of its centre, half axes
        (8, 0, 0, 0),
        (12, 0, 25, 32),
        (30, 0, 56, 70),
        (70, 0, 64, 82),
        (98, 2, 63, 80),
        (116, 12, 60, 68),
        (132, 32, 52, 48),
        (150, 42, 38, 32),
        (160, 45, 8, 6),
        (161, 45, 0, 0),
    ]
)
SPINE = np.array(
    [  # z, y of the vertebral bodies, radius
        (158, 20, 11),
        (190, 16, 11),
        (255, 16, 12),
        (300, 36, 13),
        (400, 54, 15),
        (560, 52, 19),
        (700, 36, 23),
        (780, 34, 25),
        (820, 44, 25),
    ]
)


class Patient:
    """The properties of a patient, which are the same in all its series.

    Args:
        seed: Seed of the cohort.
        number: Number of the patient in the cohort.
    """

    def __init__(self, seed: int, number: int):
        rng = self.rng = np.random.default_rng([seed, number])
        self.seed, self.number = seed, number
        self.sex, self.age = str(rng.choice(["F", "M"])), int(rng.integers(19, 90))
        self.stature = rng.normal(1.0, 0.04) * (1.03 if self.sex == "M" else 0.96)
        self.girth, self.depth = rng.uniform(0.86, 1.14), rng.uniform(0.92, 1.1)
        self.fat_mm = float(np.clip(rng.gamma(3.0, 6.0), 5, 55))
        self.noise_hu = rng.uniform(8, 42)
        self.arms_down = rng.random() < 0.4
        self.tissues = self._tissues(rng)
        self.tissues["lesion"] = self.tissues["liver"] - rng.uniform(28, 65)
        self._jitter = rng.normal(0, 1, (997, 6)).clip(-2, 2)
        self.bowel = self._bowel(rng)
        self.lesions = self._lesions(rng)
        self.vessels = self._vessels(rng)

    def jitter_of(self, organ: Organ) -> np.ndarray:
        """Deviation of this patient's organ from the average in x, y, z, width, depth and length, in standard deviations."""
        return self._jitter[int(abs(organ.x) + 3 * abs(organ.y) + 7 * organ.z) % len(self._jitter)]

    @staticmethod
    def _tissues(rng: np.random.Generator) -> dict[str, float]:
        """Mean HU of each tissue; contrast medium raises blood and perfused organs."""
        phase = int(rng.choice(3, p=[0.4, 0.2, 0.4]))  # none, arterial, portal venous
        lift = {
            "blood": (0, 260, 110),
            "vein": (0, 30, 120),
            "heart": (0, 90, 70),
            "kidney": (0, 120, 140),
            "liver": (0, 10, 48),
            "spleen": (0, 60, 65),
            "thyroid": (0, 70, 50),
            "muscle": (0, 5, 12),
            "soft": (0, 15, 30),
        }
        plain = {
            "soft": 38,
            "muscle": 52,
            "fat": -102,
            "lung": -835,
            "gas": -960,
            "fluid": 8,
            "bladder": 6,
            "blood": 42,
            "vein": 42,
            "heart": 42,
            "liver": 58,
            "spleen": 48,
            "kidney": 33,
            "gallbladder": 10,
            "thyroid": 105,
            "grey": 37,
            "white": 28,
            "nerve": 28,
            "disc": 85,
            "cancellous": 260,
            "cortical": 950,
            "petrous": 1250,
            "tooth": 1900,
            "hyoid": 420,
        }
        sd_hu = {"lung": 40, "cancellous": 60, "cortical": 130, "gas": 20, "liver": 9, "fat": 6, "soft": 6}
        return {
            name: hu + lift.get(name, (0, 0, 0))[phase] * rng.uniform(0.7, 1.25) + rng.normal(0, sd_hu.get(name, 3))
            for name, hu in plain.items()
        }

    @staticmethod
    def _bowel(rng: np.random.Generator) -> list[Organ]:
        loops = []
        for _ in range(26):
            x, y, z = rng.uniform(-85, 85), rng.uniform(-72, 8), rng.uniform(655, 880)
            loop = Organ("soft", x, y, z, *rng.uniform((15, 10, 14), (34, 17, 34)), angle=rng.uniform(-70, 70))
            loops.append(loop)
            if rng.random() < 0.4:  # gas rises to the front
                loops.append(
                    Organ("gas", x, y - 4, z, loop.rx * 0.6, loop.ry * 0.5, loop.rz * 0.7, angle=loop.angle / 2)
                )
        for x, top in ((-104, 655), (106, 640)):  # ascending and descending colon
            loops.append(Organ("soft", x, 14, top + 95, 21, 22, 110, tube=6))
            loops.append(Organ("gas", x, 6, top + rng.uniform(60, 150), 13, 11, rng.uniform(25, 70), tube=4))
        return loops

    @staticmethod
    def _lesions(rng: np.random.Generator) -> list[Organ]:
        """Liver lesions of three out of four patients: round, hypodense, mostly in the right lobe."""
        count = int(rng.integers(1, 6)) if rng.random() < 0.75 else 0
        lesions = []
        for _ in range(count):
            x, y, z = rng.normal(-72, 28), rng.normal(-8, 30), rng.normal(592, 34)
            r = rng.uniform(9, 28)
            lesions.append(Organ("lesion", x, y, z, r, r * rng.uniform(0.8, 1.2), r * 1.3, angle=rng.uniform(-90, 90)))
        return lesions

    @staticmethod
    def _vessels(rng: np.random.Generator) -> list[Organ]:
        """Vessels in the lungs, thicker towards the hilum, and sometimes an infiltrate."""
        vessels = []
        for _ in range(60):
            side, out = rng.choice([-1, 1]), rng.uniform(0, 1)
            r = 5.5 - 3.5 * out
            x, y, z = side * (30 + 78 * out), rng.normal(4, 12 + 28 * out), rng.normal(440, 55)
            vessels.append(Organ("blood", x, y, z, r * rng.uniform(1, 3), r, 14, angle=rng.uniform(-60, 60)))
        if rng.random() < 0.35:
            side = rng.choice([-1, 1])
            vessels.append(Organ("soft", side * 78, rng.uniform(0, 55), rng.uniform(400, 540), 32, 26, 34))
        return vessels


def outline(table: np.ndarray, z: np.ndarray) -> list[np.ndarray]:
    """Columns 1, 2, … of a table of knots, interpolated at z, and 0 outside of the table; each has the shape of z."""
    return [np.interp(z, table[:, 0], column, left=0, right=0) for column in table.T[1:]]
