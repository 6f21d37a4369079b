"""twinloss: the YOLOv8-family detection loss, written independently from its published definition."""

from twinloss.anchors import Pyramid, make_anchors
from twinloss.assign import Assignment, PairMetrics, assign
from twinloss.boxes import ciou, decode_boxes
from twinloss.candidates import CandidatePairs, candidate_pairs
from twinloss.classification import classification_term
from twinloss.layouts import predictions_from_maps
from twinloss.loss import DetectionLoss
from twinloss.spec import LossSpec
from twinloss.targets import GroundTruth, prepare_targets
from twinloss.terms import box_term, distance_term, distribution_term

__version__ = "0.1.0"

__all__ = [
    "Assignment",
    "CandidatePairs",
    "DetectionLoss",
    "GroundTruth",
    "LossSpec",
    "PairMetrics",
    "Pyramid",
    "assign",
    "box_term",
    "candidate_pairs",
    "ciou",
    "classification_term",
    "decode_boxes",
    "distance_term",
    "distribution_term",
    "make_anchors",
    "predictions_from_maps",
    "prepare_targets",
]
