"""Batches with ground truth that people drew, or that is shaped like it; see :func:`real_batches`."""

from oracle.cases.workloads.batches import LAYOUTS, open_pack, real_batches
from oracle.cases.workloads.label_files import load_labels
from oracle.cases.workloads.labelled_images import Pack, data_folder
from oracle.cases.workloads.synthetic import FIGURES, generate

__all__ = ["FIGURES", "LAYOUTS", "Pack", "data_folder", "generate", "load_labels", "open_pack", "real_batches"]
