"""Mistakes of the kinds people make, as small edits of Python source.

An operator looks at one syntax node and yields edits. Text is replaced at the node's position, so the rest of the file,
comments and line numbers included, stays as it is.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

__all__ = ["KINDS", "Mutant", "python_mutants"]


class Mutant(NamedTuple):
    """One mistake in one file.

    Attributes:
        line: Line of the mistake, from 1.
        kind: Name of the operator.
        before, after: The text that changes; ``after`` replaces the bytes from ``start`` to ``end``.
    """

    line: int
    kind: str
    before: str
    after: str
    start: int
    end: int

    def apply(self, source: str) -> str:
        raw = source.encode()
        return (raw[: self.start] + self.after.encode() + raw[self.end :]).decode()

    def compiles(self, source: str) -> bool:
        try:
            compile(self.apply(source), "mutant", "exec")
        except (SyntaxError, ValueError):
            return False
        return True


Edit: TypeAlias = tuple[ast.AST, str]  # a node and the text that replaces it
Text: TypeAlias = Callable[[ast.AST], str]

LOCKS = re.compile(r"lock|changed|condition|at_a_time", re.IGNORECASE)
MASKS = re.compile(r"mask|weight", re.IGNORECASE)
TWINS = (
    "chosen rejected",
    "low high",
    "first last",
    "before after",
    "start end",
    "prompt completion",
    "left right",
    "mean sum",
    "min max",
    "amin amax",
    "any all",
    "minimum maximum",
    "fmean sum",
    "rows columns",
    "sin cos",
    "append appendleft",
    "pop popleft",
)
TWIN = {a: b for pair in TWINS for a, b in (pair.split(), reversed(pair.split()))}
COMPARED = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
# Keywords without which a program does the same, only under another name or with another look.
COSMETIC = {"daemon", "name", "stacklevel", "encoding", "slots", "frozen", "kw_only", "repr", "help", "width", "title"}


def sign(node: ast.AST, text: Text) -> Iterator[Edit]:
    """``a + b`` becomes ``a - b``, ``-a`` becomes ``a``, and a product a quotient."""
    swapped = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*"}
    if isinstance(node, ast.BinOp) and type(node.op) in swapped and not _is_text(node):
        yield node, f"({text(node.left)}) {swapped[type(node.op)]} ({text(node.right)})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        yield node, f"({text(node.operand)})"
    elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
        yield node, f"{text(node.target)} = {text(node.value)}"


def off_by_one(node: ast.AST, text: Text) -> Iterator[Edit]:
    """A whole number in an index, a slice, a range, a sum or a comparison is one too large."""
    parts: list[ast.AST] = []
    if isinstance(node, ast.Slice):
        parts = [part for part in (node.lower, node.upper) if part]
    elif isinstance(node, ast.Subscript):
        parts = [node.slice]
    elif isinstance(node, ast.Compare):
        parts = list(node.comparators)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        parts = [node.left, node.right]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        parts = list(node.args)
    for part in parts:
        if isinstance(part, ast.Constant) and type(part.value) is int:
            yield part, str(part.value + 1)
        elif isinstance(part, ast.UnaryOp) and isinstance(part.op, ast.USub) and isinstance(part.operand, ast.Constant):
            yield part, f"-{part.operand.value + 1}"


def boundary(node: ast.AST, text: Text) -> Iterator[Edit]:
    """``<`` becomes ``<=``, ``==`` becomes ``!=``, ``in`` becomes ``not in``."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield node, f"{text(node.left)} {COMPARED[type(node.ops[0])]} {text(node.comparators[0])}"


def logic(node: ast.AST, text: Text) -> Iterator[Edit]:
    """``and`` becomes ``or``; a condition of several loses one."""
    if isinstance(node, ast.BoolOp):
        other = " or " if isinstance(node.op, ast.And) else " and "
        yield node, f"({other.join(f'({text(value)})' for value in node.values)})"
        yield node, f"({text(node.values[0])})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node, f"bool({text(node.operand)})"


def guard(node: ast.AST, text: Text) -> Iterator[Edit]:
    """A condition under which a function returns or raises, or a loop ends or takes its next item, is never true."""
    if isinstance(node, ast.If) and isinstance(node.body[-1], ast.Return | ast.Raise | ast.Continue | ast.Break):
        yield node.test, "False"


def detach(node: ast.AST, text: Text) -> Iterator[Edit]:
    """``x.detach()``, ``x.clone()`` and ``list(x)`` are forgotten, and so is ``torch.no_grad()``."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in {"detach", "clone", "copy", "contiguous", "double"} and not node.args:
            yield node, text(node.func.value)
        elif node.func.attr in {"no_grad", "inference_mode"}:
            yield node, "torch.enable_grad()"
    elif isinstance(node, ast.Call) and re.fullmatch(r"(?:list|dict)\([\w.]+\)", text(node)):
        yield node, text(node.args[0])


def mask(node: ast.AST, text: Text) -> Iterator[Edit]:
    """A mask or a weight is not applied; a clamp is left out."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        for here, other in ((node.left, node.right), (node.right, node.left)):
            if MASKS.search(text(here)):
                yield node, f"({text(other)})"
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in {"masked_fill", "clamp", "clip", "where"} and not _is_module(node.func.value):
            yield node, text(node.func.value)
        elif node.func.attr == "where" and len(node.args) == 3:
            yield node, f"({text(node.args[1])})"


def lock(node: ast.AST, text: Text) -> Iterator[Edit]:
    """A lock is not taken."""
    if isinstance(node, ast.With):
        for item in node.items:
            if LOCKS.search(text(item.context_expr)):
                yield item.context_expr, "__import__('contextlib').nullcontext()"


def restore(node: ast.AST, text: Text) -> Iterator[Edit]:
    """What has to happen in any case does not: a statement of ``finally`` is left out."""
    if isinstance(node, ast.Try):
        for statement in node.finalbody:
            yield statement, "pass"


def twin(node: ast.AST, text: Text) -> Iterator[Edit]:
    """Mean for sum, min for max, chosen for rejected, low for high; two arguments change places."""
    if isinstance(node, ast.Attribute) and node.attr in TWIN:
        yield node, f"{text(node.value)}.{TWIN[node.attr]}"
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in TWIN:
        yield node, TWIN[node.id]
    elif isinstance(node, ast.Call) and len(node.args) == 2 and not _starred(node):
        a, b = node.args
        if text(a) != text(b) and all(isinstance(part, ast.Name | ast.Attribute | ast.Subscript) for part in (a, b)):
            keywords = "".join(f", {text(keyword)}" for keyword in node.keywords)
            yield node, f"{text(node.func)}({text(b)}, {text(a)}{keywords})"


def default(node: ast.AST, text: Text) -> Iterator[Edit]:
    """A default is another one: a switch is turned, a number doubled."""
    values: list[ast.expr | None] = []
    if isinstance(node, ast.FunctionDef):
        values = [*node.args.defaults, *node.args.kw_defaults]
    elif isinstance(node, ast.AnnAssign):
        values = [node.value]
    for value in values:
        if isinstance(value, ast.Constant):
            if isinstance(value.value, bool):
                yield value, str(not value.value)
            elif isinstance(value.value, int | float):
                yield value, str(2 * value.value or 1)


def key(node: ast.AST, text: Text) -> Iterator[Edit]:
    """A key names something else, or a cache key leaves out what the value depends on."""
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
        yield node.slice, repr(node.slice.value + "_")
    elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple) and "key" in text(node.targets[0]):
        yield node.value, f"({', '.join(text(part) for part in node.value.elts[:-1])},)"


def argument(node: ast.AST, text: Text) -> Iterator[Edit]:
    """A keyword is not passed on."""
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg and keyword.arg not in COSMETIC:
                rest = [text(part) for part in (*node.args, *(k for k in node.keywords if k is not keyword))]
                yield node, f"{text(node.func)}({', '.join(rest)})"


def swallow(node: ast.AST, text: Text) -> Iterator[Edit]:
    """An exception is not raised."""
    if isinstance(node, ast.Raise):
        yield node, "pass"


def omission(node: ast.AST, text: Text) -> Iterator[Edit]:
    """A call or a change of an attribute is left out."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and "super()" not in text(node):
        yield node, "pass"
    elif isinstance(node, ast.Assign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if all(isinstance(target, ast.Attribute | ast.Subscript) for target in targets):
            yield node, "pass"


def words(node: ast.AST, text: Text) -> Iterator[Edit]:
    """A message shows something else than the value it speaks of."""
    if isinstance(node, ast.JoinedStr):
        for part in node.values:
            if isinstance(part, ast.FormattedValue) and part.format_spec is None:
                yield part.value, "0"


KINDS: dict[str, Callable[[ast.AST, Text], Iterator[Edit]]] = {
    operator.__name__: operator
    for operator in (
        sign, off_by_one, boundary, logic, guard, detach, mask, lock, restore, twin, default, key, argument, swallow,
        omission, words,
    )
}  # fmt: skip


def python_mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of ``source``; each differs from it in one place. A few do not compile."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    raw, tree = source.encode(), ast.parse(source)

    def span(node: ast.AST) -> tuple[int, int]:
        return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset

    def text(node: ast.AST) -> str:
        start, end = span(node)
        return raw[start:end].decode()

    seen: set[tuple[int, int, str]] = set()
    for node in _mutable(tree):
        for kind, operator in KINDS.items():
            for place, after in operator(node, text):
                start, end = span(place)
                # Before Python 3.12, positions within an f-string can be wrong.
                if (start, end, after) not in seen and _is_at(place, text(place)):
                    seen.add((start, end, after))
                    yield Mutant(place.lineno, kind, text(place), after, start, end)


def _mutable(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that a test can notice: no type annotations, no imports for type checkers, no ``__repr__``."""
    for field, value in ast.iter_fields(node):
        children = value if isinstance(value, list) else [value]
        for child in children:
            if not isinstance(child, ast.AST) or field in {"annotation", "returns", "decorator_list"}:
                continue
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.FunctionDef) and child.name == "__repr__":
                continue
            if isinstance(child, ast.Assign) and ast.unparse(child.targets[0]) == "__all__":
                continue
            if hasattr(child, "lineno"):
                yield child
            yield from _mutable(child)


def _is_at(node: ast.AST, text: str) -> bool:
    if isinstance(node, ast.stmt):
        return True
    try:
        return ast.dump(ast.parse(f"({text})", mode="eval").body) == ast.dump(node)
    except SyntaxError:
        return False


def _is_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(part, ast.JoinedStr) or (isinstance(part, ast.Constant) and isinstance(part.value, str))
        for part in ast.walk(node)
    )


def _is_module(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in {"torch", "np", "numpy"}


def _starred(node: ast.Call) -> bool:
    return any(isinstance(part, ast.Starred) for part in node.args)
