"""Adapters of third-party packages: each makes a candidate of one package's loss, and converts conventions only.

They run in the candidate's process, which has this folder and the package's on its path, and neither the suite nor the reference. They
import torch, the package and each other. Where a package's modules import far more than its loss needs, only the needed files are loaded,
and small stand-ins take the place of what these import (:mod:`stand_ins`).
"""
