"""``python -m oracle.ladder [RELEASE ...]``: did the loss change between these releases, since when, and how much?

Without arguments it asks a default set of releases from 8.0.100 to the newest known. Where two neighbours differ, the first release that
shows the difference is found by halving. Exit codes: 0 done, 1 ``--newest`` found a change, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import Path

from oracle.ladder.answers import AnswerCache, Answers
from oracle.ladder.catalogue import all_questions
from oracle.ladder.definitions import Matcher
from oracle.ladder.install import cache_folder
from oracle.ladder.questions import Question
from oracle.ladder.releases import DEFAULT, between, order, published
from oracle.ladder.replay import show
from oracle.ladder.rows import rows
from oracle.ladder.search import Ask, different, first_changes
from oracle.tools.atomic_files import write_frame
from oracle.tools.options import TASK, chosen_tasks
from oracle.tools.progress import Progress

ROWS = Path("reports", "out", "ladder", "rows.parquet")
RELEASE = "release"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _options(arguments)
    started = time.monotonic()
    questions = [question for question in all_questions() if question.task in chosen_tasks(options.task)]
    answers_of = AnswerCache(questions, cache_folder())
    if options.show:
        return show(options.releases, options.show, answers_of, questions)
    known = published()
    chosen = _chosen(options, known)
    print(f"The release ladder: {len(chosen)} releases, {len(questions)} questions each; cache {cache_folder()}", flush=True)
    with Progress("releases asked", found=("differ", "none differs"), quiet=options.quiet) as progress:
        progress.plan({RELEASE: len(chosen)})
        ask = _with_progress(answers_of, progress)
        for release in chosen:
            ask(release)
        climbed = chosen if options.no_bisect else _with_first_changes(chosen, known, ask, questions, progress)
        progress.doing = "comparing them, and the twin with each"
        frame = rows(climbed, known, ask, questions, Matcher())
    write_frame(frame, options.rows)
    changed = frame[~frame["verdict"].isin(["same", "rounding", "first", ""])]
    took = time.monotonic() - started
    print(f"{len(climbed)} releases, {changed['release'].nunique()} of them with changes, in {took:.0f} s: {options.rows}")
    return int(options.newest and len(changed) > 0)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("ladder", description="Did the loss change between these releases of the reference, and since when?")
    parser.add_argument("releases", nargs="*", metavar="RELEASE", help="releases such as 8.3.253; without any, a default set")
    TASK.add_to(parser.add_argument, help="ask about the loss of this task; repeatable (default: all)")
    parser.add_argument("--bisect", nargs=2, metavar=("A", "B"), help="find the first releases that differ between two")
    parser.add_argument("--all-between", nargs=2, metavar=("A", "B"), help="ask every release from A to B")
    parser.add_argument(
        "--newest", action="store_true", help="compare the newest release with the last of the default set; 1 if it differs"
    )
    parser.add_argument("--no-bisect", action="store_true", help="do not look for the first release of each change")
    parser.add_argument("--show", metavar="QUESTION", help="print the releases' answers to one question, named as in the rows")
    parser.add_argument("--rows", type=Path, default=ROWS, help=f"where to write the rows (default {ROWS})")
    parser.add_argument("-q", "--quiet", action="store_true", help="do not show the progress")
    options = parser.parse_args(arguments)
    for release in (*options.releases, *(options.bisect or ()), *(options.all_between or ())):
        if not re.fullmatch(r"\d+\.\d+\.\d+", release):
            parser.error(f"{release!r} is not a release: give three numbers, such as 8.3.253")
    if sum(map(bool, (options.releases, options.bisect, options.all_between, options.newest))) > 1:
        parser.error("give releases, or one of --bisect, --all-between and --newest")
    return options


def _chosen(options: argparse.Namespace, known: Sequence[str]) -> tuple[str, ...]:
    if options.all_between:
        first, last = options.all_between
        return between(first, last, known)
    newest = (DEFAULT[-1], known[-1]) if options.newest else ()
    named = options.bisect or options.releases or newest or DEFAULT
    return tuple(sorted(set(named), key=order))


def _with_progress(answers_of: AnswerCache, progress: Progress) -> Ask:
    """Returns ``answers_of`` with a line of progress for each release that is asked, including those that a search asks."""
    seen: set[str] = set()

    def ask(release: str, names: Collection[str] | None = None) -> Answers:
        start = time.monotonic()
        before = len(answers_of.replies(release))
        answers = answers_of(release, names)
        new = len(answers.replies) - before
        if new or release not in seen:
            if release not in seen:
                progress.done(RELEASE)
            seen.add(release)
            how = f"{new} asked in {time.monotonic() - start:.1f} s" if new else "from the cache"
            progress.print_line(f"  {release:<8} {answers.summary} ({how})")
        return answers

    return ask


def _with_first_changes(
    chosen: Sequence[str], known: Sequence[str], ask: Ask, questions: Sequence[Question], progress: Progress
) -> tuple[str, ...]:
    """Returns the chosen releases, and for each change between them the two neighbours that show it."""
    found = set(chosen)
    usable = [release for release in chosen if ask(release).asked]
    steps = {(a, b): between(a, b, known) for a, b in pairwise(usable) if different(ask(a), ask(b), questions)}
    halvings = {pair: math.ceil(math.log2(len(step) - 1)) for pair, step in steps.items()}
    progress.add(RELEASE, sum(halvings.values()))
    for pair, step in steps.items():
        asked = progress.estimate.made[RELEASE]
        for before, after in first_changes(step, ask, questions):
            progress.print_line(f"  change: {before} -> {after}")
            found |= {*between(before, after, known)}  # includes the releases between them that could not be asked
            for entry_point in {question.entry_point for question in different(ask(before), ask(after), questions)}:
                progress.differs(after, entry_point)
        progress.add(RELEASE, progress.estimate.made[RELEASE] - asked - halvings[pair])
    for release in found:
        ask(release)
    return tuple(sorted(found, key=order))


if __name__ == "__main__":
    sys.exit(main())
