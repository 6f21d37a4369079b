"""The documentation's settings: ``nox -s docs`` builds it with Sphinx, and treats warnings as errors.

Three parts are written anew at each build, from what they describe: the table of sessions, the divergence register, the planted faults
and cheats; and the example pages and the table of what finds these faults, from committed rows.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT / "impl"), str(ROOT)]

from properties.divergences.table import markdown as register  # noqa: E402 - the rooms are on the path only now
from properties.selfcheck import cheating_candidates  # noqa: E402
from properties.selfcheck.cheats import CHEATS  # noqa: E402
from properties.selfcheck.planted_faults import CATALOGUE  # noqa: E402
from reports import markdown  # noqa: E402
from reports.examples import MEASURED, committed, write_examples  # noqa: E402
from reports.faults.kill_matrix import alone_by_task, by_task  # noqa: E402
from twinloss import __version__  # noqa: E402

project = "twinloss"
author = copyright = "twinloss maintainers"  # noqa: A001 - the name that Sphinx reads
release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.intersphinx", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "_generated"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
smartquotes = False  # they would make dashes of options' hyphens
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_use_ivar = True  # attributes are described in the class, and need no entry of their own
if tags.has("online"):  # noqa: F821 - Sphinx defines it: ``nox -s docs -- -t online`` links to the documentation of Python and torch
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }

html_theme = "furo"
html_title = f"twinloss {release}"
html_static_path = ["_static"]
html_css_files = ["wide-tables.css"]
html_extra_path = ["_examples"]


def table(*rows: tuple[str, ...]) -> str:
    """A Markdown table; the first row holds the headings. A bar within a cell would end it."""
    head, *body = (f"| {' | '.join(cell.replace(chr(10), ' ').replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
    return "\n".join([head, "| :-- " * len(rows[0]) + "|", *body])


def sessions() -> str:
    """A row for each session of the noxfile: its command, and its docstring."""
    functions = [node for node in ast.parse((ROOT / "noxfile.py").read_text("utf-8")).body if isinstance(node, ast.FunctionDef)]
    told = [(f"`nox -s {node.name}`", ast.get_docstring(node) or "") for node in functions if node.decorator_list]
    return table(("command", "what it does"), *((name, text) for name, text in told if name != "`nox -s reported`"))


def faults() -> str:
    """A row for each planted fault."""
    rows = ((fault.task, fault.name, fault.violates, fault.section) for fault in CATALOGUE)
    return f"{len(CATALOGUE)} faults.\n\n" + table(("task", "fault", "sentence of the definition that it breaks", "§"), *rows)


def cheats() -> str:
    """A row for each candidate that cheats, with what names it."""
    rows = ((f"`{cheat.name}`", doc(getattr(cheating_candidates, cheat.name)), " or ".join(cheat.gives_away)) for cheat in CHEATS)
    return table(("candidate", "what it does", "what the card names"), *rows)


def doc(function: Callable[..., object]) -> str:
    """The first paragraph of a docstring."""
    return (function.__doc__ or "").partition("\n\n")[0]


def kills() -> str:
    """What each property finds of the planted faults, and the faults that one property alone finds, by the committed run."""
    rows = committed(MEASURED / "faults.parquet")
    return "\n\n".join([markdown.table(by_task(rows)), "Faults that one property alone finds:", markdown.table(alone_by_task(rows))])


def write_tables() -> None:
    """Write the generated tables, each into a file that a page includes."""
    folder = DOCS / "_generated"
    folder.mkdir(exist_ok=True)
    for name, text in (("sessions", sessions()), ("register", register()), ("faults", faults()), ("cheats", cheats()), ("kills", kills())):
        (folder / f"{name}.md").write_text(text + "\n", "utf-8")


write_tables()
write_examples(DOCS / "_examples")
