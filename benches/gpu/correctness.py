"""Checks on a GPU: the kernels' tests, the judge on whole workloads, memory and races, determinism, sizes beyond 32 bits."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from benches.gpu.finding import GpuFinding, holds
from benches.gpu.processes import environment, workers_at_once
from benches.gpu.steps import DTYPE, Step, case_of, device, free
from benches.measure import cuda
from oracle.cases.build import build
from oracle.cases.case import Case, DtypeName, Setting
from oracle.tools.programs import HangError
from oracle.tools.programs import run as run_program
from twinloss import DetectionLoss, LossSpec

JUDGED: tuple[tuple[str, DtypeName], ...] = (
    ("coco", "float32"),
    ("coco", "float16"),
    ("gwhd", "bfloat16"),
    ("boxes-300", "float16"),
    ("coco-end-to-end", "float16"),
    ("empty", "float16"),
)
REPEATED = ("coco", "boxes-300", "coco-end-to-end", "masks-26")
CAPTURED = ("coco", "masks-26")
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
MANY_LOGITS = 2**31
RUNS = 100
TIME_LIMIT = 420  # Seconds of processor time of a process started here, and seconds without any.


def kernel_tests(folder: Path | None) -> Iterator[GpuFinding]:
    """Run the kernels' tests on the device, one file of ``folder`` that holds some after the other, each in several processes.

    Without a folder, and where it holds no tests, the check is not measured.
    """
    files = [file for file in sorted(folder.glob("*.py")) if "def test_" in file.read_text("utf-8")] if folder else []
    if not files:
        why = f"no tests in {folder}" if folder else "no tests given: name their folder with --kernel-tests"
        yield GpuFinding("kernel-tests", "all of it", "not measured", detail=why)
    for file in files:
        # Warnings of other packages on a machine with a GPU say nothing about the kernels.
        # Several processes, since the compilation of the kernels takes longer than the tests.
        workers = ("-n", str(workers_at_once()), "--dist", "worksteal")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", *workers, str(file.resolve())]
        code, output = _run(command, workers_at_once(), TRITON_INTERPRET="0")
        yield holds("kernel-tests", file.stem, code == 0, detail=_last_lines(output, 1 if code == 0 else 12))


def sanitizer() -> Iterator[GpuFinding]:
    """Run compute-sanitizer on a few small cases: out-of-bounds and uninitialised memory, races, barriers."""
    tool = shutil.which("compute-sanitizer")
    for name in TOOLS:
        if tool is None:
            yield GpuFinding("sanitizer", name, "not measured", detail="compute-sanitizer is not installed")
            continue
        command = [tool, "--tool", name, "--error-exitcode", "9", sys.executable, "-m", "benches.gpu.sanitizer_target"]
        # PyTorch's memory pool would hide a read beyond the end of a tensor.
        code, output = _run(command, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
        yield holds("sanitizer", name, code == 0, detail=_last_lines(output, 1 if code == 0 else 12))


def judged() -> Iterator[GpuFinding]:
    """Judge the kernels on whole workloads."""
    from oracle.comparison.compare import compare
    from oracle.contract.contender import Contender
    from oracle.contract.verdict import Verdict

    kernels = Contender("twin-triton", "this checkout", lambda spec: DetectionLoss(spec, backend="triton"), arithmetic="float32")
    for workload, dtype in JUDGED:
        setting = Setting(dtype, device=device())
        comparison = compare(case_of(workload), setting, [kernels], stages=("assign", "loss_given", "loss"))
        report = comparison.report() or comparison.verdict.value
        yield holds("judge", "agrees with the definition", comparison.verdict is not Verdict.DIFFER, workload, dtype, report[:600])
        free()


def bits() -> Iterator[GpuFinding]:
    """Compare the bits of repeated runs, between which other kernels change the scheduling."""
    for workload in REPEATED:
        step = Step(workload)
        step()
        first = [answer.clone() for answer in step.answers]
        different = 0
        for run in range(RUNS):
            if run % 3 == 0:
                torch.randn(1 << (10 + run % 14), device=device()).sort()
            step()
            different += not all(torch.equal(a, b) for a, b in zip(step.answers, first, strict=True))
        yield holds("bits", f"{RUNS} runs are equal", different == 0, workload, DTYPE, f"{different} differ" if different else "")
        free()


def beyond_32_bits() -> Iterator[GpuFinding]:
    """Run on more than 2³¹ class logits: copies of a small batch, each of which must have the gradient of that batch."""
    small = case_of("classes-365")
    spec = LossSpec(num_classes=365, reg_max=1)
    one = Case(spec, small.image_size, 4, tuple(box for box in small.boxes if box.image < 4), small.prediction)
    images = MANY_LOGITS // (spec.num_classes * one.num_anchors) + 16
    preds, batch = build(one, Setting(DTYPE, device=device()))
    copies = images // 4
    criterion = DetectionLoss(spec, backend="triton")
    if (total := float(criterion.assign(preds, batch).weight.sum())) < 1:
        raise ValueError(f"the soft targets add up to {total:.3g}: below 1, copies do not have the gradient of one batch")
    criterion(preds, batch)[0].sum().backward()
    many = {name: preds[name].detach().repeat(copies, 1, 1).requires_grad_() for name in ("boxes", "scores")}
    rows = {key: value.repeat(copies, *[1] * (value.ndim - 1)) for key, value in batch.items()}
    rows["batch_idx"] += 4 * torch.arange(copies, device=device()).repeat_interleave(len(batch["batch_idx"]))
    criterion(preds | many, rows)[0].sum().backward()
    for name, leaf in many.items():
        expected = preds[name].grad
        for at in (0, copies // 2, copies - 1):
            worst = (leaf.grad[4 * at : 4 * at + 4].float() - expected.float()).abs().max().item()
            near = worst <= 2e-3 * expected.abs().max().item()
            what = f"gradient of {name}, copy {at + 1} of {copies}"
            yield holds("beyond 32 bits", what, near, dtype=DTYPE, detail=f"largest difference {worst:.3g}")
    free()


def graph() -> Iterator[GpuFinding]:
    """Capture a step on padded ground truth without boxes, and replay it after filling in other ground truth."""
    most, of_rows = 1024, ("batch_idx", "cls", "bboxes")
    for workload in CAPTURED:
        step = Step(workload)
        real = {key: step.batch[key] for key in of_rows}
        padded = {key: torch.full((most, *value.shape[1:]), -1.0, device=device()) for key, value in real.items()}
        step.batch = {**step.batch, **padded}
        replay = cuda.Replay(step)  # captured without a valid box
        for key, value in real.items():
            padded[key][: len(value)] = value
        replay.run()
        torch.cuda.synchronize()
        replayed = [answer.clone() for answer in step.answers]
        eager = Step(workload)
        eager()
        same = all(torch.equal(a, b) for a, b in zip(replayed, eager.answers, strict=True))
        yield holds("graph", "a replay has the bits of a call", same, workload, DTYPE)
        free()


def _run(command: list[str], processes: int = 1, **env: str) -> tuple[int, str]:
    try:
        done = run_program(command, env=environment(**env), busy_s=TIME_LIMIT * processes, idle_s=TIME_LIMIT)
    except HangError as hang:
        return 124, str(hang)
    return done.returncode, done.stdout + done.stderr


def _last_lines(output: str, count: int) -> str:
    return " | ".join(line.strip() for line in output.strip().splitlines()[-count:])[:600]
