"""Submissions to the NTIRE challenges: a network in one file of its own, its weights, its results."""

from __future__ import annotations

from prompt_mamba_arch.ntire.factsheet import write_factsheet
from prompt_mamba_arch.ntire.measures import esr_score, load_network_file, measure
from prompt_mamba_arch.ntire.one_file import flatten
from prompt_mamba_arch.ntire.perceptual import PerceptualScore
from prompt_mamba_arch.ntire.results import write_results
from prompt_mamba_arch.ntire.submission import (
    TRACKS,
    Track,
    add_branch,
    install_submission,
    network_file,
    write_submission,
)

__all__ = [
    "TRACKS",
    "PerceptualScore",
    "Track",
    "add_branch",
    "esr_score",
    "flatten",
    "install_submission",
    "load_network_file",
    "measure",
    "network_file",
    "write_factsheet",
    "write_results",
    "write_submission",
]
