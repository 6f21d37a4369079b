"""The twin in place of an Ultralytics model's own criterion: one line, and an error where it would silently not be used.

Everything is by duck typing; nothing of Ultralytics is imported. :mod:`twinloss.trainer.criterion_swap` says what happens to a model.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from twinloss.end_to_end import EndToEndLoss
from twinloss.loss import DetectionLoss
from twinloss.release_definitions import switches
from twinloss.spec import LossSpec
from twinloss.trainer.criterion_swap import Criterion, Maker, Settings, check_age, find_model, maker_of

__all__ = ["Hook", "callback", "install", "uninstall"]

_PREPARED, _EPOCH_END = "on_pretrain_routine_end", "on_train_epoch_end"

# Handlers of the trainer print it among the trainer's own lines, and in one process of several.
_log = logging.getLogger("ultralytics.twinloss")


def install(target: Any, **options: Any) -> Hook:
    """Make the twin the criterion of a model, or of every model that a trainer will train.

    Args:
        target: a detection, segmentation, oriented-box or pose model; or a trainer or ``YOLO(...)``, that is anything with
            ``add_callback``: its model, the models that training makes of it and their moving averages all get the twin, in the trainer's
            other processes too.
        options: ``verify`` and ``release``, as :class:`Hook` takes them, and those of :class:`~twinloss.loss.TaskLoss`, such as
            ``ties="reference"``.

    Returns:
        The hook, which counts calls. As a context manager it uninstalls at the end of the block, and raises if nothing was trained with it.

    Raises:
        TypeError: the target is none of these, or has a head that the twin does not serve, or a criterion that is not its release's own, or
            belongs to a release whose models have none; the message names it.
        ValueError: an option's value is unknown, or the model's release is older than any that was examined.
    """
    hook = Hook(**options)
    hook.target = target
    model, add_callback = find_model(target), getattr(target, "add_callback", None)
    if model is None:
        check_age(target)
    if model is None and add_callback is None:
        raise TypeError(f"{type(target).__name__} is neither a model with init_criterion nor a trainer or YOLO with add_callback")
    if model is not None:
        hook.take_over(model)
    if add_callback is not None:
        add_callback(_PREPARED, hook)
    return hook


def callback(**options: Any) -> Hook:
    """The same as a callback: ``yolo.add_callback("on_pretrain_routine_end", twinloss.hook.callback())``; options as in :func:`install`."""
    return Hook(**options)


def uninstall(target: Any) -> None:
    """Give a model its own criterion back, and take the callbacks from a trainer or ``YOLO(...)``; harmless where nothing is installed.

    An end-to-end model's own criterion continues at the epoch that the twin had reached.
    """
    for handlers in getattr(target, "callbacks", {}).values():
        handlers[:] = [handler for handler in handlers if not isinstance(getattr(handler, "__self__", handler), Hook)]
    for model in _models(target):
        if maker := maker_of(model):
            maker.give_back()


class Hook:
    """One installation of the twin: its options, and how often it was called.

    Called with a trainer, as its callback when all is prepared, it takes over the trainer's model and that model's moving average.

    The twin computes the definition of the model's release, with the numbers that the model's own criterion reads (gains, class weights,
    the assigner's constants), read from it on every call, and returns as it returns. With ``verify`` the own criterion is asked as well, on
    the predictions of the first batch that trains and has boxes, and of the first one after any of those numbers has changed: a term or an
    assignment that differs by more than rounding raises ``RuntimeError``. That costs one call of the own criterion, without gradients. A
    batch on which no box has a soft target of a thousandth says little: then the second, fourth, eighth one and so on are asked too.

    What verification cannot see: a change without effect on the batches that are asked, such as an epsilon of the CIoU that is below the
    rounding of its boxes, or one that comes later and is none of the numbers above; the arithmetic in half precision, as both are asked in
    float32; and the choice among candidates that are equal but for rounding. Among candidates of metric 0, as those of an untrained model,
    that choice decides mask and keypoint terms, which count anchors without a soft target too: a warning says how many.

    Args:
        verify: whether to verify.
        release: version whose definition to compute, such as "8.3.253", in place of the one that the package of the model's class has:
            for a package that numbers its releases otherwise.
        options: of the task's loss, as :class:`~twinloss.DetectionLoss` has them.

    Attributes:
        training_calls, validation_calls: how often the twin was called.
        verifications: how often it was verified.
        largest_difference: of a term from the own criterion's on the same assignment, relative, the largest that verification saw.

    Raises:
        ValueError: an option's value is unknown, or ``release`` is malformed or older than any that was examined.
    """

    def __init__(self, *, verify: bool = True, release: str | None = None, **options: Any) -> None:
        DetectionLoss(LossSpec(num_classes=1), **options)  # A wrong option is reported here rather than after the data is scanned.
        if release is not None:
            switches(release)
        self.options = {"verify": verify, "release": release, **options}
        self.settings = Settings(self.heard, verify, release, options)
        self.target: Any = None
        self.validation_calls = self.verifications = 0
        self.largest_difference = 0.0
        self._last: Any = None
        self._undecided = self._told = False
        self._training_calls = 0
        self._calls_before_epoch = 0
        self._reports: str | None = None

    def __call__(self, trainer: Any) -> None:
        """Take over what a trainer is about to train.

        Raises:
            RuntimeError: the trainer has no model yet.
            TypeError: the model's head is one that the twin does not serve.
        """
        models = _models(trainer)
        if not models:
            check_age(trainer)
            raise RuntimeError(f"{type(trainer).__name__} has no model yet; add this callback to {_PREPARED!r}")
        if any((maker := maker_of(model)) and maker.settings.heard != self.heard for model in models):
            return  # Another hook serves this trainer, such as this one's copy that came along with the trainer.
        for model in models:
            self.take_over(model)
        self._calls_before_epoch = self._training_calls
        if self.end_epoch not in getattr(trainer, "callbacks", {}).get(_EPOCH_END, ()):
            trainer.add_callback(_EPOCH_END, self.end_epoch)

    def take_over(self, model: Any) -> None:
        """Make the twin one model's criterion."""
        if maker := maker_of(model):
            if maker.settings.heard == self.heard:
                return
            maker.give_back()
        Maker(model, self.settings)

    def heard(self, criterion: Criterion, value: Tensor | None, training: bool) -> None:
        """Count a call; the first one that trains is logged, and a later one if it settles the first verification."""
        if not training:
            self.validation_calls += 1
            return
        self._training_calls += 1
        if criterion.finding is not None and criterion.finding is not self._last:
            self._last = criterion.finding
            self.verifications += 1
            self.largest_difference = max(self.largest_difference, criterion.finding.largest)
            self._say_what_is_left_out(criterion, criterion.finding.weightless)
        if self._training_calls == 1:
            _log.info(
                "twinloss: active, this training's criterion is %s, with the definition of %s, %s; first loss %s",
                "EndToEndLoss" if isinstance(criterion.loss, EndToEndLoss) else type(criterion.loss).__name__,
                criterion.own.release,
                _verified(criterion),
                "inside of a compiled graph" if value is None else f"{value.sum().item():.5g}",
            )
            self._undecided = criterion.settings.verify and _is_undecided(criterion)
        elif self._undecided and not _is_undecided(criterion):
            self._undecided = False
            _log.info("twinloss: batch %d: %s", self._training_calls, _verified(criterion))

    def _say_what_is_left_out(self, criterion: Criterion, weightless: int) -> None:
        """Warn once of anchors that the own criterion counts and the twin does not."""
        if weightless and not self._told:
            self._told = True
            _log.warning(
                "twinloss: on this batch the model's own %s counts %d anchors without a soft target in its mask or keypoint terms. "
                "torch.topk chose them among metrics of 0; ties='stable', the default, leaves them out, so that these terms differ. "
                "install(..., ties='reference') counts them too, on the torch backend",
                type(criterion.own.criterion).__name__,
                weightless,
            )

    def end_epoch(self, trainer: Any) -> None:
        """At the end of an epoch: raise ``RuntimeError`` if it was trained without the twin."""
        model = find_model(trainer)
        if self._training_calls == self._calls_before_epoch:
            found = type(getattr(model, "criterion", None)).__name__
            raise RuntimeError(
                f"an epoch was trained without the twin: the {type(model).__name__}'s criterion is a {found}. Something replaced it after "
                "the hook was installed, or does not call model.loss; to train without the twin, call twinloss.hook.uninstall"
            )
        self._calls_before_epoch = self._training_calls
        if self._reports is not None:
            Path(self._reports, str(os.getpid())).write_text(str(self._training_calls), encoding="utf-8")

    @property
    def training_calls(self) -> int:
        """Calls that train; those of a trainer's other processes are added as epochs end."""
        files = Path(self._reports).glob("*") if self._reports is not None else ()
        return self._training_calls + sum(int(file.read_text(encoding="utf-8")) for file in files if file.name != str(os.getpid()))

    def check(self) -> None:
        """Raise ``RuntimeError`` if nothing was trained with the twin."""
        if self.training_calls == 0:
            raise RuntimeError(
                "the twin is installed, but nothing was trained with it. If training ran in several processes, they started without this "
                "hook: start them with torchrun and a script that installs it"
            )

    def __enter__(self) -> Hook:  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        uninstall(self.target)
        if error is None:
            self.check()

    def __getstate__(self) -> dict[str, Any]:
        """What a trainer sends to its other processes: the options, and the folder in which they report their calls."""
        if self._reports is None:
            self._reports = tempfile.mkdtemp(prefix="twinloss-")
            weakref.finalize(self, shutil.rmtree, self._reports, ignore_errors=True)
        return {"options": self.options, "reports": self._reports}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Hook.__init__(self, **state["options"])
        self._reports = state["reports"]


def _models(target: Any) -> list[Any]:
    """The model and its moving average, as far as they are there."""
    average = getattr(getattr(target, "ema", None), "ema", None)
    return [model for model in (find_model(target), find_model(average)) if model is not None]


def _verified(criterion: Criterion) -> str:
    """What is known of a criterion, for the log."""
    name = type(criterion.own.criterion).__name__
    if not criterion.settings.verify:
        return f"not verified (verify=False) against the model's own {name}"
    if criterion.finding is None:
        return f"not yet verified: the model's own {name} is asked on the first batch that trains and has boxes"
    apart = f"on this batch against the model's own {name}: terms {criterion.finding.largest:.1g} apart"
    if _is_undecided(criterion):
        return f"verified in part {apart}; no box has a soft target of a thousandth, so that later batches are asked about the assignment"
    return f"verified {apart}"


def _is_undecided(criterion: Criterion) -> bool:
    """Whether no batch that was asked so far shows the assignment."""
    return criterion.pending or criterion.finding is None
