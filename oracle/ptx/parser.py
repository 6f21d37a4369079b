"""Parses PTX into kernels of instructions: the part of the language that Triton's compiler emits."""

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
    """A number, as its bits."""

    bits: int


class Symbol(NamedTuple):
    """A label, or a variable in shared memory."""

    name: str


class Address(NamedTuple):
    """An address: a register or symbol, plus an offset in bytes."""

    base: Register | Symbol
    offset: int


class Vector(NamedTuple):
    """Operands that are read or written together."""

    parts: tuple[Operand, ...]


Operand = Register | Immediate | Symbol | Address | Vector


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        text: source text.
        operation: name without modifiers, such as "ld".
        modifiers: parts after the name, such as ("global", "v4", "b32").
        operands: target first.
        guard: predicate register under which it runs, if any.
        negated: whether the predicate must be false.
    """

    text: str
    operation: str
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: str | None = None
    negated: bool = False

    @property
    def type(self) -> str:
        """The last modifier, which is the type of its operands."""
        return self.modifiers[-1]

    @cached_property
    def target(self) -> Operand | None:
        """The operand that it writes, if that is in registers."""
        return None if self.operation in WITHOUT_TARGET or not self.operands else self.operands[0]

    @cached_property
    def sources(self) -> tuple[Operand, ...]:
        """The operands without the target."""
        return self.operands if self.target is None else self.operands[1:]

    @cached_property
    def writes(self) -> frozenset[str]:
        """Names of the registers that it writes."""
        return frozenset(() if self.target is None else _registers((self.target,)))

    @cached_property
    def reads(self) -> frozenset[str]:
        """Names of the registers that it reads, including its guard."""
        return frozenset(_registers(self.sources)) | ({self.guard} if self.guard else set())


@dataclass(frozen=True)
class Block:
    """Consecutive instructions, of which only the last may be a jump or a barrier."""

    instructions: tuple[Instruction, ...]


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel's code.

    Attributes:
        name: name of the function.
        parameters: types of the parameters by name, in order.
        widths: bits of each kind of register, by prefix.
        blocks: in the order of the text.
        labels: number of the block that follows each label.
    """

    name: str
    parameters: dict[str, str]
    widths: dict[str, int]
    blocks: tuple[Block, ...]
    labels: dict[str, int]

    def width(self, register: str) -> int:
        """Returns the number of bits of a register."""
        return self.widths[register.rstrip("0123456789")]

    @cached_property
    def shared_between_blocks(self) -> frozenset[str]:
        """Registers whose value is passed from one block to another, or to the next run of the same block."""
        seen: dict[str, int] = {}
        found: set[str] = set()
        for number, block in enumerate(self.blocks):
            written: set[str] = set()
            for instruction in block.instructions:
                found |= {name for name in instruction.reads | instruction.writes if seen.setdefault(name, number) != number}
                # Read before it is written, or written under a guard: the value can come from an earlier run of this block.
                found |= (instruction.reads | (instruction.writes if instruction.guard else set())) - written
                written |= instruction.writes
        return frozenset(found)


def parse(text: str) -> Kernel:
    """Returns the one kernel in the text.

    Raises:
        ValueError: the text contains no kernel, or syntax that is not supported.
    """
    lines = [COMMENT.sub("", line).rstrip() for line in text.splitlines()]
    start = next((number for number, line in enumerate(lines) if ".entry" in line), None)
    if start is None:
        raise ValueError("the text contains no kernel: there is no .entry")
    opening = next(number for number in range(start, len(lines)) if lines[number] == "{")
    closing = next(number for number in range(opening, len(lines)) if lines[number] == "}")
    heading = "\n".join(lines[start:opening])
    entry = ENTRY.search(heading)
    if entry is None:
        raise ValueError(f"the kernel's heading is not supported: {heading[:200]}")
    parameters = {name: kind for kind, name in PARAMETER.findall(heading)}
    widths: dict[str, int] = {}
    blocks, labels = _blocks(list(_statements(lines[opening + 1 : closing], widths)))
    return Kernel(entry[1], parameters, widths, blocks, labels)


def _statements(lines: list[str], widths: dict[str, int]) -> Iterator[str]:
    """Yields statements and labels; adds the widths of declared registers to ``widths``."""
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
        raise ValueError(f"this instruction is not supported: {statement}")
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
            raise ValueError(f"this address is not supported: {text}")
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
