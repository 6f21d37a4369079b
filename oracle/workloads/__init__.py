"""Batches with ground truth that people drew, or that is shaped like it; see :func:`real_batches`."""

from oracle.workloads.batches import LAYOUTS, open_pack, real_batches
from oracle.workloads.labels import load_labels
from oracle.workloads.pack import Pack, data_folder
from oracle.workloads.synthetic import FIGURES, generate

__all__ = ["FIGURES", "LAYOUTS", "Pack", "data_folder", "generate", "load_labels", "open_pack", "real_batches"]
