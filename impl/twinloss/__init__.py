"""twinloss: the YOLOv8-family losses, written independently from its published definition."""

from twinloss import hook
from twinloss.anchors import Pyramid, make_anchors
from twinloss.assignment.assign import Assignment, PairMetrics, assign
from twinloss.assignment.candidates import CandidatePairs, candidate_pairs
from twinloss.assignment.ground_truth import GroundTruth, prepare_targets
from twinloss.assignment.scene import Scene
from twinloss.backends.native.dispatch import CpuKernels
from twinloss.backends.native.library import cpu_kernels
from twinloss.end_to_end import EndToEndLoss
from twinloss.geometry.corners import ciou, decode_boxes
from twinloss.geometry.probiou import probiou
from twinloss.geometry.rectangles import decode_oriented_boxes
from twinloss.inputs.level_maps import predictions_from_maps
from twinloss.loss import DetectionLoss, OrientedLoss, PoseLoss, SegmentationLoss
from twinloss.spec import LossSpec
from twinloss.task_specs import OrientedSpec, PoseSpec, SegmentationSpec
from twinloss.terms.angle import angle_term
from twinloss.terms.boxes import box_term, clamped_target, distance_term, distribution_term, distributions
from twinloss.terms.classification import classification_term
from twinloss.terms.keypoints import decode_keypoints, keypoint_differences, likelihood_term, location_term, visibility_term

__version__ = "0.1.0"

__all__ = [
    "Assignment",
    "CandidatePairs",
    "CpuKernels",
    "DetectionLoss",
    "EndToEndLoss",
    "GroundTruth",
    "LossSpec",
    "OrientedLoss",
    "OrientedSpec",
    "PairMetrics",
    "PoseLoss",
    "PoseSpec",
    "Pyramid",
    "Scene",
    "SegmentationLoss",
    "SegmentationSpec",
    "angle_term",
    "assign",
    "box_term",
    "candidate_pairs",
    "ciou",
    "clamped_target",
    "classification_term",
    "cpu_kernels",
    "decode_boxes",
    "decode_keypoints",
    "decode_oriented_boxes",
    "distance_term",
    "distribution_term",
    "distributions",
    "hook",
    "keypoint_differences",
    "likelihood_term",
    "location_term",
    "make_anchors",
    "predictions_from_maps",
    "prepare_targets",
    "probiou",
    "visibility_term",
]
