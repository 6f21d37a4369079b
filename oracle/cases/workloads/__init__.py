"""Batches with annotated ground truth, or with synthetic ground truth of the same statistics; see :func:`real_batches`."""

from oracle.cases.workloads.batches import LAYOUTS, open_images, real_batches
from oracle.cases.workloads.label_files import load_labels
from oracle.cases.workloads.labelled_images import LabelledImages, data_folder
from oracle.cases.workloads.synthetic import STATISTICS, generate

__all__ = ["LAYOUTS", "STATISTICS", "LabelledImages", "data_folder", "generate", "load_labels", "open_images", "real_batches"]
