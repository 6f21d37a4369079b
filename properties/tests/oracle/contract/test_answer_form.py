"""Whatever a candidate's code raises or returns is a verdict on the candidate: no row is lost, and no error of ours is raised."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import dataclasses
import importlib
import os
import signal
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from oracle.cases.case import Box, Case, Prediction
from oracle.comparison.compare import STAGES, Comparison, compare
from oracle.comparison.conduct import STAGE, WARNINGS
from oracle.comparison.registry import CandidateError, load_candidate, shipped
from oracle.comparison.rows import Run, rows_of
from oracle.contract import time_limit as watchdog
from oracle.contract.contender import Contender
from oracle.contract.time_limit import TimeLimitExceeded, time_limit
from oracle.contract.verdict import Verdict
from oracle.tools.printable import exception_text, printable
from properties.selfcheck.sample_candidates import Transformed, TwinLossOnly
from properties.tests.oracle.judge.helpers import FLOAT32
from twinloss import Assignment, DetectionLoss, LossSpec

CASE = Case(LossSpec(num_classes=2, reg_max=4, strides=(8, 16)), (32, 32), 1, (Box(0, 1, 16, 16, 12, 12),), Prediction("near", spread=0.25))
LIMIT = 100.0


def candidate(factory: Callable[[LossSpec], Any], **attributes: Any) -> Contender:
    return Contender("candidate", "", factory, **{"arithmetic": "float32", "time_limit": LIMIT, **attributes})


def judged(contender: Contender, stages: tuple[str, ...] = (STAGE, *STAGES)) -> Comparison:
    return compare(CASE, FLOAT32, [contender], shipped()["reference"], stages)


def findings(comparison: Comparison) -> dict[tuple[str, str], str]:
    return {(finding.stage, finding.quantity): finding.what for finding in comparison.results[0].findings}


class UnprintableError(RuntimeError):
    def __str__(self) -> str:
        raise ValueError("no")

    __repr__ = __str__


class Slippery(str):
    def __format__(self, how: str) -> str:
        raise ValueError("no")

    encode = __getitem__ = None  # type: ignore[assignment]


class EvasiveError(RuntimeError):
    def __str__(self) -> str:
        return Slippery("a message")


RAISED = [
    (asyncio.CancelledError("stop"), "CancelledError: stop"),
    (pytest.skip.Exception("not here"), "Skipped: not here"),
    (pytest.exit.Exception("enough"), "Exit: enough"),
    (KeyboardInterrupt("mine"), "KeyboardInterrupt: mine"),
    (SystemExit(3), "SystemExit: 3"),
    (GeneratorExit(), "GeneratorExit: "),
    (UnprintableError(), "UnprintableError: (its message cannot be shown: __str__ raised ValueError)"),
    (EvasiveError(), "EvasiveError: a message"),
    (ValueError("half of \ud83d, and \x00 and \x1b[31m"), r"ValueError: half of \ud83d, and \x00 and \x1b[31m"),
    (ValueError("m" * 10**6), "… (1,000,000 characters)"),
    (
        builtins.BaseExceptionGroup("two", [KeyError("a"), SystemExit(1)]),
        "two (2 sub-exceptions), the first of them KeyError: 'a'",
    ),
]


@pytest.mark.parametrize(("error", "said"), RAISED, ids=[type(error).__name__ + str(k) for k, (error, _) in enumerate(RAISED)])
def test_what_a_candidate_raises_is_its_verdict_and_is_written(error: BaseException, said: str, tmp_path: Path) -> None:
    def sin(*_: Any) -> None:
        raise error

    comparison = judged(candidate(lambda spec: TwinLossOnly(spec, sin)))
    found = findings(comparison)
    assert found.keys() == {(STAGE, "raises"), ("loss", "call")}
    assert all(said in what and len(what) < 3000 for what in found.values()), found
    pd.DataFrame(map(vars, rows_of(comparison, Run("", "")))).to_parquet(tmp_path / "rows.parquet")
    assert any(said in detail for detail in pd.read_parquet(tmp_path / "rows.parquet")["detail"])
    comparison.report().encode()


def test_a_real_interruption_is_none_of_the_candidate() -> None:
    def sin(*_: Any) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        except KeyboardInterrupt:
            pass

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background ignores the signal
    try:
        with pytest.raises(KeyboardInterrupt):
            judged(candidate(lambda spec: TwinLossOnly(spec, sin)))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


class Marked(torch.Tensor):
    """A subclass as libraries have them."""


class Sparse(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(_ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0].to_sparse()


class Keyed(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("no items")


ANSWERS: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "subclass": (lambda a: (a[0].as_subclass(Marked), a[1]), "wrong tensor", "the loss is of type Marked, a subclass of torch.Tensor"),
    "meta": (lambda a: (a[0].to("meta"), a[1]), "wrong tensor", "the loss is on the device meta"),
    "sparse": (lambda a: (a[0].to_sparse(), a[1]), "wrong tensor", "the loss is stored as torch.sparse_coo"),
    "numpy": (lambda a: (a[0].detach().numpy(), a[1]), "wrong shape", "the loss is of type ndarray"),
    "list": (lambda a: (list(a[0]), a[1]), "wrong shape", "the loss is of type list"),
    "None": (lambda _: None, "wrong shape", "the answer is None"),
    "three": (lambda a: (*a, 0), "wrong shape", "the answer is a tuple of 3"),
    "complex": (lambda a: (a[0].to(torch.complex64), a[1]), "wrong dtype", "the loss is torch.complex64"),
    "integer": (lambda a: (a[0].detach().long(), a[1]), "wrong dtype", "the loss is torch.int64"),
    "items are a list": (lambda a: (a[0], list(a[1])), "wrong shape", "the items are of type list"),
    "an item is a vector": (
        lambda a: (a[0], {"box_loss": torch.ones(2)}),
        "wrong shape",
        "item 'box_loss' is a torch.float32 tensor of shape",
    ),
    "an item is complex": (lambda a: (a[0], {"box_loss": 1j}), "wrong dtype", "item 'box_loss' is of type complex"),
    "an item is huge": (lambda a: (a[0], {"box_loss": 10**400}), "wrong dtype", "item 'box_loss' is "),
    "an item is meta": (lambda a: (a[0], {"box_loss": torch.ones((), device="meta")}), "wrong dtype", "item 'box_loss' is "),
    "items that raise": (lambda a: (a[0], Keyed(a[1])), "raises", "raised RuntimeError: no items"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_of_another_form_is_named(name: str) -> None:
    change, mode, said = ANSWERS[name]
    found = findings(judged(candidate(lambda spec: Transformed(spec, change))))
    assert {quantity for stage, quantity in found if stage == STAGE} == {mode}, found
    assert all(said in what for what in found.values()), found


def test_a_sparse_gradient_is_named() -> None:
    class Criterion(DetectionLoss):
        def __call__(self, preds: Any, batch: Any) -> Any:
            return super().__call__({**preds, "boxes": Sparse.apply(preds["boxes"])}, batch)

    found = findings(judged(candidate(lambda spec: Hider(Criterion(spec)))))
    assert found[STAGE, "wrong tensor"] == "the gradient of boxes is stored as torch.sparse_coo; it must be a dense tensor"


class Hider:
    """Another's loss and nothing else."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, preds: Any, batch: Any) -> Any:
        return self.inner(preds, batch)


@pytest.mark.parametrize("change", [lambda a: (a[0].detach(), a[1]), lambda a: (a[0].new_ones(3), a[1])], ids=["detached", "constant"])
def test_a_loss_without_gradient_is_named(change: Callable[[Any], Any]) -> None:
    found = findings(judged(candidate(lambda spec: Transformed(spec, change))))
    assert ("loss", "gradient of boxes") in found


def test_a_view_of_the_inputs_is_judged_as_numbers() -> None:
    found = findings(judged(candidate(lambda _: Hider(lambda preds, _: (preds["boxes"].flatten()[:3], {})))))
    assert ("loss", "loss") in found
    assert not any(quantity == "call" for _, quantity in found)


@pytest.mark.parametrize(
    ("sin", "said"),
    [
        (lambda _, batch: batch.__setitem__(3, 4), "the call left batch_idx, cls, bboxes, one of type int"),
        (lambda preds, _: preds.clear(), "the call left none"),
        (lambda preds, _: preds.__setitem__("feats", None), "the call changed preds['feats']"),
        (lambda _, batch: batch.__setitem__("cls", batch["cls"].as_subclass(Marked)), "the call changed batch['cls']"),
    ],
)
def test_inputs_may_be_left_in_any_state(sin: Callable[[Any, Any], Any], said: str) -> None:
    def after(preds: Any, batch: Any) -> Any:
        answer = DetectionLoss(CASE.spec)(dict(preds), dict(batch))
        sin(preds, batch)
        return answer

    found = findings(judged(candidate(lambda _: Hider(after))))
    assert said in found[STAGE, "mutates inputs"]


def assigning(change: Callable[[Assignment], Any]) -> Contender:
    class Criterion(DetectionLoss):
        def assign(self, preds: Any, batch: Any) -> Any:
            return change(super().assign(preds, batch))

    return candidate(Criterion)


ASSIGNMENTS: dict[str, tuple[Callable[[Assignment], Any], str]] = {
    "None": (lambda _: None, "the assignment's image must be a tensor of shape (n); found NoneType"),
    "floats": (lambda a: dataclasses.replace(a, anchor=a.anchor + 0.5), "the assignment's anchor must be integers; found torch.float32"),
    "booleans": (lambda a: dataclasses.replace(a, box=a.box.bool()), "the assignment's box must be integers; found torch.bool"),
    "complex": (
        lambda a: dataclasses.replace(a, weight=a.weight.to(torch.complex64)),
        "the assignment's weight must be real numbers; found",
    ),
    "subclass": (
        lambda a: dataclasses.replace(a, image=a.image.as_subclass(Marked)),
        "the assignment's image is of type Marked",
    ),
    "lengths": (lambda a: dataclasses.replace(a, weight=a.weight[1:]), "must have columns of one length"),
    "numpy": (lambda a: types.SimpleNamespace(**{k: v.numpy() for k, v in vars(a).items()}), "the assignment's image must be a tensor"),
    "beyond": (lambda a: dataclasses.replace(a, anchor=a.anchor + 10**6), "the assignment names anchor 1000"),
}


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_an_assignment_of_another_form_is_named(name: str) -> None:
    change, said = ASSIGNMENTS[name]
    found = findings(judged(assigning(change), ("assign",)))
    assert said in found["assign", "call"]
    assert "raised" not in found["assign", "call"]


def test_integers_of_any_width_are_an_assignment() -> None:
    narrow = assigning(lambda a: dataclasses.replace(a, anchor=a.anchor.to(torch.uint8), box=a.box.int(), image=a.image.to(torch.int16)))
    assert judged(narrow, ("assign",)).verdict is not Verdict.DIFFER


def raising(*_: Any) -> str | None:
    raise KeyError("spec")


@pytest.mark.parametrize(
    ("declines", "said"),
    [
        (raising, "its `declines` raised KeyError: 'spec'"),
        (lambda *_: True, "its `declines` gave True; it must return a sentence with the reason, or None"),
        (lambda *_: np.bool_(False), "its `declines` gave of type bool"),
        (lambda: None, "its `declines` raised TypeError"),
    ],
)
def test_a_faulty_declines_is_named(declines: Any, said: str) -> None:
    comparison = judged(candidate(TwinLossOnly, declines=declines))
    ((where, what),) = findings(comparison).items()
    assert where == (STAGE, "wrong attribute")
    assert said in what
    assert {j.verdict for j in comparison.results[0].judgements if j.stage != STAGE} == {Verdict.NOT_COMPARED}


def test_declines_cannot_spoil_the_inputs() -> None:
    def declines(_: Any, inputs: Any, __: Any) -> None:
        inputs.batch["bboxes"].zero_()

    assert judged(candidate(TwinLossOnly, declines=declines)).verdict is not Verdict.DIFFER


class Nonsense(TwinLossOnly):
    leaf_dtype: Any = "half"


class Hostile(TwinLossOnly):
    @property
    def leaf_dtype(self) -> Any:
        raise RuntimeError("private")


class Tied(TwinLossOnly):
    ties = 7


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (Nonsense, "its attribute `leaf_dtype` is 'half'; it must be a floating-point dtype, or None"),
        (Hostile, "its attribute `leaf_dtype` cannot be read: it raised RuntimeError: private"),
        (Tied, "its attribute `ties` is 7; it must be 'stable' or 'reference'"),
        (lambda _: 3, "the factory raised TypeError: the factory of candidate returned 3"),
    ],
)
def test_a_faulty_attribute_of_a_criterion_is_named(factory: Any, said: str) -> None:
    assert any(said in what for what in findings(judged(candidate(factory))).values())


class Version(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            raise RuntimeError("lazily no")
        raise AttributeError(name)


def _made(**attributes: Any) -> Any:
    def factory(spec: LossSpec) -> Any:
        return DetectionLoss(spec)

    vars(factory).update(attributes)
    return factory


class Unreadable:
    """A factory whose attribute cannot be read."""

    def __call__(self, spec: LossSpec) -> Any:
        return DetectionLoss(spec)

    @property
    def declines(self) -> Any:
        raise RuntimeError("private")


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    made = Version("candidate_of_the_test")
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (_made(arithmetic="half"), "its attribute `arithmetic` is 'half'; it must be 'logits' or 'float32'"),
        (_made(declines="never"), "its attribute `declines` is 'never'; it must be a function"),
        (Unreadable(), "its attribute `declines` cannot be read: it raised RuntimeError: private"),
        (_made(), "its attribute `__version__` cannot be read: it raised RuntimeError: lazily no"),
    ],
)
def test_faulty_attributes_of_a_factory_are_told_when_it_is_loaded(module: types.ModuleType, factory: Any, said: str) -> None:
    vars(module)["factory"] = factory
    with pytest.raises(CandidateError) as caught:
        load_candidate("candidate_of_the_test:factory")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "text", ["import pytest; pytest.skip('no', allow_module_level=True)", "raise KeyboardInterrupt", "import sys; sys.exit(1)"]
)
def test_a_module_that_ends_its_import_is_no_end_of_the_run(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ends_its_import.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CandidateError, match="importing ends_its_import raised "):
        load_candidate("ends_its_import:factory")


def test_a_module_may_warn_as_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "warns_on_import.py").write_text("import warnings; warnings.warn('old', FutureWarning)\ndef factory(spec): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_candidate("warns_on_import:factory").name == "warns_on_import:factory"


class TestWarnings:
    def test_they_are_told_and_no_fault(self) -> None:
        def sin(*_: Any) -> None:
            warnings.warn("use another loss", FutureWarning, stacklevel=1)
            torch.meshgrid(torch.arange(2), torch.arange(2))

        comparison = judged(candidate(lambda spec: TwinLossOnly(spec, sin)))
        assert comparison.verdict is not Verdict.DIFFER, comparison.report()
        (told,) = [j for j in comparison.results[0].judgements if j.quantity == WARNINGS]
        assert told.verdict is Verdict.AGREE
        assert "FutureWarning: use another loss (contract/test_answer_form.py:" in told.reason
        assert str(Path(__file__).parents[4]) not in told.reason, "no path of a machine"

    def test_filters_of_its_own_hold(self) -> None:
        def sin(*_: Any) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.warn("mine", UserWarning, stacklevel=1)

        assert "raised UserWarning: mine" in findings(judged(candidate(lambda spec: TwinLossOnly(spec, sin))))[STAGE, "raises"]

    def test_ours_may_not_warn(self) -> None:
        def sin(*_: Any) -> None:
            warnings.warn("ours", UserWarning, stacklevel=1)

        ours = Contender("ours", "", lambda spec: TwinLossOnly(spec, sin), "float32")
        assert "raised UserWarning: ours" in findings(judged(ours))[STAGE, "raises"]

    def test_what_a_destructor_raises_is_told(self) -> None:
        class Falls:
            def __del__(self) -> None:
                raise RuntimeError("late")

        def sin(*_: Any) -> None:
            Falls()

        comparison = judged(candidate(lambda spec: TwinLossOnly(spec, sin)))
        assert comparison.verdict is not Verdict.DIFFER
        assert "in a destructor or callback: RuntimeError: late" in str([j.reason for j in comparison.results[0].judgements])


def compute(seconds: float = 1e9) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


class TestLimit:
    @pytest.fixture(autouse=True)
    def patience(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A busy machine may take its time, but where a test is about that."""
        monkeypatch.setattr(watchdog, "WALL_CLOCK_FACTOR", 1e4)
        monkeypatch.setattr(watchdog, "KILL_FACTOR", 1e4)

    def test_waiting_for_the_processor_is_no_hang(self) -> None:
        with time_limit(0.2):
            time.sleep(0.5)

    def test_computing_is(self) -> None:
        start = time.thread_time()
        with pytest.raises(TimeLimitExceeded, match=r"more than the 0\.2 s of processor time"), time_limit(0.2):
            compute()
        assert 0.15 < time.thread_time() - start < 2

    def test_sleeping_for_ever_is_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(watchdog, "WALL_CLOCK_FACTOR", 5)
        with pytest.raises(TimeLimitExceeded, match=r"did not come back within 0\.5 s, of which it computed"), time_limit(0.1):
            time.sleep(100)

    def test_an_interruption_that_is_swallowed_is_insisted_on(self) -> None:
        with pytest.raises(TimeLimitExceeded), time_limit(0.1), contextlib.suppress(BaseException):
            compute()

    def test_a_stretch_in_which_modules_are_loaded_does_not_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with time_limit(0.3):
            monkeypatch.setitem(sys.modules, "stands_for_a_module", sys)
            compute(0.35)

    def test_an_import_is_not_interrupted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        text = "import time\nuntil = time.thread_time() + 0.8\nwhile time.thread_time() < until: pass\ndone = True\n"
        (tmp_path / "slow_to_import.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)

        def call() -> None:
            importlib.import_module("slow_to_import")
            compute()

        with pytest.raises(TimeLimitExceeded), time_limit(0.2):
            call()
        assert sys.modules.pop("slow_to_import").done, "it is whole"
        assert not watchdog.import_interrupted()


def test_plain_text_is_cut_and_escaped() -> None:
    assert printable("a\x00b\ud800", 10) == "a\\x00b\\ud800"
    assert printable("abcdef", 3) == "abc … (6 characters)"
    assert exception_text(ValueError("x")) == "ValueError: x"
