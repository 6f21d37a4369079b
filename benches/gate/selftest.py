"""``python -m benches.gate.selftest --times 10``: does the gate decide correctly on this machine under load?

Each round runs the real command three times in a copy of this checkout: on a change that changes nothing, which must pass; on one that
makes the twin 15 % slower, which must fail; and with a reference that is faster in one process than in the next, which must be
inconclusive. Meanwhile busy loops keep every core occupied.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benches.gate import batches
from benches.gate.decision import GateVerdict
from benches.gate.paired_processes import open_row
from benches.gate.wheels import ROOT
from benches.measure.worker_client import Worker
from benches.plan.contenders import AUTO_TWIN

ROW = "one image"
SLOWER = 0.15
NOISE = 2  # Largest slow-down of the reference as a share of its time: three times as many pairs could not decide either.
BUSY = "while True: pass"

SLOW_TWIN = """

def _slower(whole, share):
    import time

    def call(self, preds, batch):
        start = time.thread_time()
        answer = whole(self, preds, batch)
        end = time.thread_time() + share * (time.thread_time() - start)
        while time.thread_time() < end:
            pass
        return answer

    return call


DetectionLoss.__call__ = _slower(DetectionLoss.__call__, {share})
"""

NOISY_REFERENCE = """

def _noisy(make):
    import random
    import time

    share = random.SystemRandom().uniform(0, {noise})

    def made(spec, device="cpu"):
        criterion = make(spec, device)

        def call(preds, batch):
            start = time.thread_time()
            answer = criterion(preds, batch)
            end = time.thread_time() + share * (time.thread_time() - start)
            while time.thread_time() < end:
                pass
            return answer

        return call

    return made


installed_criterion = _noisy(installed_criterion)
"""


@dataclass(frozen=True)
class Plant:
    """A change, and the verdict that the gate must give on it."""

    name: str
    file: str
    text: str
    expected: GateVerdict


def plants(share: float) -> tuple[Plant, ...]:
    """Returns the three changes; ``share`` is the slow-down of the forward call that slows a whole step by :data:`SLOWER`."""
    return (
        Plant("nothing changed", "impl/twinloss/__init__.py", "\n", GateVerdict.PASS),
        Plant(f"twin {SLOWER:.0%} slower", "impl/twinloss/__init__.py", SLOW_TWIN.format(share=round(share, 4)), GateVerdict.FAIL),
        Plant("noisy reference", "oracle/reference/criterion.py", NOISY_REFERENCE.format(noise=NOISE), GateVerdict.INCONCLUSIVE),
    )


def forward_share(folder: Path) -> float:
    """Returns the share of the forward call in the time of a whole step of the twin."""
    (row,) = batches.rows(folder, [ROW]).values()
    with Worker("steady", 1) as worker:
        worker.ask("start", threads=1)
        open_row(worker, row, seed=0)
        samples = worker.ask("turn", calls={AUTO_TWIN.label: 30})[AUTO_TWIN.label]
    shares = sorted(sample["forward_ns"] / (sample["forward_ns"] + sample["backward_ns"]) for sample in samples)
    return float(shares[len(shares) // 2])


def copied(folder: Path) -> Path:
    """Copy this checkout's files, with their changes, into a new repository and commit them; returns its folder."""
    target = folder / "checkout"
    files = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], check=True, capture_output=True, text=True).stdout
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    git(target, "init", "--quiet")
    git(target, "add", "--all")
    commit(target, "as it is")
    return target


def git(where: Path, *arguments: str) -> None:
    """Run git."""
    identity = ("-c", "user.name=selftest", "-c", "user.email=selftest@localhost", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, "-C", str(where), *arguments], check=True, capture_output=True)


def commit(where: Path, message: str) -> None:
    """Commit the added files."""
    git(where, "commit", "--quiet", "--allow-empty", "--message", message)


def tried(checkout: Path, plant: Plant, pairs: int) -> tuple[int, str]:
    """Returns the gate's exit code on a change, and its output; the change is undone afterwards."""
    file = checkout / plant.file
    before = file.read_text("utf-8")
    file.write_text(before + plant.text, "utf-8")
    try:
        command = [sys.executable, "-m", "benches.gate", "--against", "HEAD", "--row", ROW, "--pairs", str(pairs)]
        ran = subprocess.run(command, cwd=checkout, env=_environment(checkout), capture_output=True, text=True, check=False)
    finally:
        file.write_text(before, "utf-8")
    return ran.returncode, ran.stderr


def _environment(checkout: Path) -> dict[str, str]:
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join([str(checkout / "impl"), str(checkout)])}


@contextlib.contextmanager
def load(processes: int) -> Iterator[None]:
    """Run busy loops during the block."""
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def main() -> int:
    """Run the rounds, print a line for each trial; returns 1 when a verdict was wrong."""
    parser = argparse.ArgumentParser("python -m benches.gate.selftest")
    parser.add_argument("--times", type=int, default=1, help="rounds (default: 1)")
    parser.add_argument("--load", type=int, default=2, help="busy loops during the run (default: 2)")
    parser.add_argument("--pairs", type=int, default=8, help="pairs of processes in a pass (default: 8)")
    options = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="selftest-") as place, load(options.load):
        checkout = copied(Path(place))
        share = SLOWER / forward_share(Path(place))
        for at in range(options.times):
            for plant in plants(share):
                start = time.monotonic()
                code, output = tried(checkout, plant, options.pairs)
                right = code == plant.expected
                wrong += not right
                line = f"round {at + 1}: {plant.name}: exit {code}, expected {int(plant.expected)}, {time.monotonic() - start:.0f} s"
                sys.stdout.write(f"{'ok   ' if right else 'WRONG'} {line}\n{'' if right else output}")
                sys.stdout.flush()
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
