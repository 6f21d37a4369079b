"""PTX as text, into kernels of instructions: what Triton's compiler writes, and no more of the language than that."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

WIDTHS = {"pred": 1, "b16": 16, "b32": 32, "b64": 64}
TERMINATORS = ("bra", "ret", "exit", "bar")
WITHOUT_TARGET = ("st", "red", "bra", "ret", "exit", "bar", "stmatrix")
COMMENT = re.compile(r"//.*")
ENTRY = re.compile(r"\.entry\s+(\w+)\s*\(")
PARAMETER = re.compile(r"\.param\s+\.(\w+)[^,)]*?\b(\w+)\s*(?=[,\n)])")
STATEMENT = re.compile(r"(?:@(!?)(%\w+)\s+)?([a-z][\w.:]*)\s*(.*)", re.DOTALL)
PARTS = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,\s][^,]*")


class Register(NamedTuple):
    """A register, or a special one such as ``tid.x``."""

    name: str


class Immediate(NamedTuple):
    """A number, as the bits of it."""

    bits: int


class Symbol(NamedTuple):
    """A label, or a variable in shared memory."""

    name: str


class Address(NamedTuple):
    """A place in memory: a register or symbol, and bytes beyond it."""

    base: Register | Symbol
    offset: int


class Vector(NamedTuple):
    """Registers that are read or written together."""

    parts: tuple[Operand, ...]


Operand = Register | Immediate | Symbol | Address | Vector


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        text: as it was written.
        operation: its name without modifiers, such as "ld".
        modifiers: what follows the name, such as ("global", "v4", "b32").
        operands: target first.
        guard: the predicate that it waits for, if any.
        negated: whether the predicate has to be false.
    """

    text: str
    operation: str
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: str | None = None
    negated: bool = False

    @property
    def type(self) -> str:
        """The last modifier, which is the type that it works on."""
        return self.modifiers[-1]

    @cached_property
    def target(self) -> Operand | None:
        """What it writes, if that is registers."""
        return None if self.operation in WITHOUT_TARGET or not self.operands else self.operands[0]

    @cached_property
    def sources(self) -> tuple[Operand, ...]:
        """The operands but for the target."""
        return self.operands if self.target is None else self.operands[1:]

    @cached_property
    def writes(self) -> frozenset[str]:
        """Names of the registers that it writes."""
        return frozenset(() if self.target is None else _registers((self.target,)))

    @cached_property
    def reads(self) -> frozenset[str]:
        """Names of the registers that it reads, its guard included."""
        return frozenset(_registers(self.sources)) | ({self.guard} if self.guard else set())


@dataclass(frozen=True)
class Block:
    """Instructions that run one after the other; only the last may jump or wait."""

    instructions: tuple[Instruction, ...]


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel's code.

    Attributes:
        name: of the function.
        parameters: types by name, in order.
        widths: bits of each kind of register, by its prefix.
        blocks: in the order of the text.
        labels: block that each label stands before.
    """

    name: str
    parameters: dict[str, str]
    widths: dict[str, int]
    blocks: tuple[Block, ...]
    labels: dict[str, int]

    def width(self, register: str) -> int:
        """Bits of a register."""
        return self.widths[register.rstrip("0123456789")]

    @cached_property
    def shared_between_blocks(self) -> frozenset[str]:
        """Registers whose value one block leaves to another, or to its own next turn."""
        seen: dict[str, int] = {}
        found: set[str] = set()
        for number, block in enumerate(self.blocks):
            written: set[str] = set()
            for instruction in block.instructions:
                found |= {name for name in instruction.reads | instruction.writes if seen.setdefault(name, number) != number}
                # Read before it is written here, or perhaps not written: the value may be one of an earlier turn.
                found |= (instruction.reads | (instruction.writes if instruction.guard else set())) - written
                written |= instruction.writes
        return frozenset(found)


def parse(text: str) -> Kernel:
    """The one kernel in the text.

    Raises:
        ValueError: it holds none, or something that is not understood.
    """
    lines = [COMMENT.sub("", line).rstrip() for line in text.splitlines()]
    start = next((number for number, line in enumerate(lines) if ".entry" in line), None)
    if start is None:
        raise ValueError("the text has no .entry, so there is no kernel in it")
    opening = next(number for number in range(start, len(lines)) if lines[number] == "{")
    closing = next(number for number in range(opening, len(lines)) if lines[number] == "}")
    heading = "\n".join(lines[start:opening])
    entry = ENTRY.search(heading)
    if entry is None:
        raise ValueError(f"the kernel's heading is not understood: {heading[:200]}")
    parameters = {name: kind for kind, name in PARAMETER.findall(heading)}
    widths: dict[str, int] = {}
    blocks, labels = _blocks(list(_statements(lines[opening + 1 : closing], widths)))
    return Kernel(entry[1], parameters, widths, blocks, labels)


def _statements(lines: list[str], widths: dict[str, int]) -> Iterator[str]:
    """Statements and labels; ``widths`` gets the declared registers'."""
    for line in lines:
        for part in re.split(r";", line.strip()):
            statement = part.strip()
            declared = re.fullmatch(r"\.reg\s+\.(\w+)\s+(%\w+)<\d+>", statement)
            if declared:
                widths[declared[2]] = WIDTHS[declared[1]]
            elif statement not in ("", "{", "}") and not statement.startswith((".loc", ".pragma")):
                yield statement


def _blocks(statements: Sequence[str]) -> tuple[tuple[Block, ...], dict[str, int]]:
    jumped_to = {statement.split()[-1] for statement in statements if " bra" in f" {statement}"}
    blocks: list[list[Instruction]] = [[]]
    labels: dict[str, int] = {}
    for statement in statements:
        if statement.endswith(":"):
            if statement[:-1] in jumped_to:
                blocks += [[]] if blocks[-1] else []
                labels[statement[:-1]] = len(blocks) - 1
            continue
        instruction = _instruction(statement)
        if instruction.operation == "bar" and blocks[-1]:
            blocks.append([])
        blocks[-1].append(instruction)
        if instruction.operation in TERMINATORS:
            blocks.append([])
    return tuple(Block(tuple(block)) for block in blocks), labels


def _instruction(statement: str) -> Instruction:
    found = STATEMENT.fullmatch(statement)
    if found is None:
        raise ValueError(f"this is not understood as an instruction: {statement}")
    negated, guard, name, rest = found.groups()
    operation, *modifiers = name.replace("::", ".").split(".")
    operands = tuple(_operand(part.strip()) for part in PARTS.findall(rest))
    return Instruction(statement, operation, tuple(modifiers), operands, guard, bool(negated))


def _operand(text: str) -> Operand:
    if text.startswith("{"):
        return Vector(tuple(_operand(part.strip()) for part in text[1:-1].split(",")))
    if text.startswith("["):
        base, _, offset = text[1:-1].replace(" ", "").partition("+")
        place = _operand(base)
        if not isinstance(place, Register | Symbol):
            raise ValueError(f"this is not understood as an address: {text}")
        return Address(place, int(offset or "0", 0))
    if text.startswith("%"):
        return Register(text)
    if text.startswith(("0f", "0d")):
        return Immediate(int(f"0x{text[2:]}", 0))
    if re.fullmatch(r"-?(0x[0-9a-fA-F]+|\d+)U?", text):
        return Immediate(int(text.rstrip("U"), 0))
    return Symbol(text)


def _registers(operands: tuple[Operand, ...]) -> Iterator[str]:
    for operand in operands:
        if isinstance(operand, Register):
            yield operand.name
        elif isinstance(operand, Vector):
            yield from _registers(operand.parts)
        elif isinstance(operand, Address):
            yield from _registers((operand.base,))
