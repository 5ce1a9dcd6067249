"""RealBlur: real blur of a moving camera, two cameras behind one lens, aligned; from JPEG (J) and from raw (R).

Link:      https://github.com/rimchang/RealBlur (RealBlur.tar.gz)
Size:      3758 training and 980 test pairs, each for J and for R, of about 680x773
Licence:   CC BY 4.0
Citation:  Rim et al., "Real-World Blur Dataset for Learning and Benchmarking Deblurring Algorithms", ECCV 2020

It unpacks as one folder for each scene and four lists, which say what is for training; a line is the sharp image's path
and the blurred one's:

    RealBlur-J_ECC_IMCORR_centroid_itensity_ref/scene001/blur/blur_1.png      scene001/gt/gt_1.png
    RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref/scene001/...
    RealBlur_J_train_list.txt      RealBlur_J_test_list.txt      RealBlur_R_train_list.txt      RealBlur_R_test_list.txt

Recognised as it lies, too: the test sets as MPRNet and Restormer have them (test/RealBlur_J/input and target).

Prepared: J/train, J/test, R/train and R/test, whole, with gt and lq. An image is called scene001-1.
"""

from __future__ import annotations

from prompt_mamba_arch.prepare.spec import Dataset, Layout, Subset

FOLDERS = {
    "J": "RealBlur-J_ECC_IMCORR_centroid_itensity_ref",
    "R": "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref",
}


def read_pairs(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if line.strip()]


def _subset(kind: str, part: str, count: int) -> Subset:
    official = Layout(
        "as it unpacks",
        gt=f"{FOLDERS[kind]}/{{scene}}/gt/gt_{{number}}",
        lq=f"{FOLDERS[kind]}/{{scene}}/blur/blur_{{number}}",
        listed_in=f"RealBlur_{kind}_{part}_list.txt",
        read_list=read_pairs,
    )
    restormer = Layout(
        "MPRNet, Restormer",
        gt=f"{part}/RealBlur_{kind}/target/{{name}}",
        lq=f"{part}/RealBlur_{kind}/input/{{name}}",
    )
    return Subset(f"{kind}/{part}", (official, restormer), count, "deblur", ("motion",), split=part)


DATASET = Dataset(
    "realblur",
    "RealBlur",
    tuple(_subset(kind, part, count) for kind in FOLDERS for part, count in (("train", 3758), ("test", 980))),
    __doc__,
)
