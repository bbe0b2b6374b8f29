"""MMDetection's configs: Python text that assigns plain values. It is read and never run."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from detdistill.errors import UserError
from detdistill.files import read_json

Config = dict[str, Any]

OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class _NotPlainError(Exception):
    """An expression that is not a plain value."""


def read_file(path: Path) -> Config:
    """A config file, `.py` with the files that its `_base_` names, or `.json`.

    Raises:
        UserError: it cannot be read, or its model is not written as plain values.
    """
    content = read_json(path) if path.suffix == ".json" else _with_bases(path, seen=())
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise UserError(f"{path} does not describe a model: it has no dictionary named 'model'.")
    return content


def parse(text: str, origin: str) -> Config:
    """The values that a config's text assigns; assignments of anything else are left out.

    Args:
        text: Python.
        origin: where it stands, for messages.

    Raises:
        UserError: it is not Python, or its model is not written as plain values.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise UserError(f"{origin} is not a config in Python: {error}.") from error
    values: Config = {}
    for statement in tree.body:
        if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
            continue
        name = statement.targets[0].id
        try:
            values[name] = _value(statement.value, values)
        except (_NotPlainError, RecursionError) as error:
            values.pop(name, None)
            if name == "model":
                raise UserError(
                    f"{origin}, line {statement.lineno}: the model holds {error}, which is not a "
                    "plain value. Give the config as MMDetection dumps it, with everything in it."
                ) from error
    return values


def _with_bases(path: Path, seen: tuple[Path, ...]) -> Config:
    if path in seen:
        raise UserError(f"{path} names itself as its own base.")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"There is no config file {path}.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"The config {path} cannot be read: {error}.") from error
    own = parse(text, str(path))
    bases = own.pop("_base_", [])
    merged: Config = {}
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list | tuple) or not all(isinstance(base, str) for base in bases):
        raise UserError(f"{path}: _base_ is {bases!r}, not a file or a list of files.")
    for base in bases:
        file = (path.parent / base).resolve()
        merged = _merged(merged, _with_bases(file, (*seen, path)))
    return _merged(merged, own)


def _merged(base: Config, own: Config) -> Config:
    """The second over the first, dictionary by dictionary; `_delete_` replaces one as a whole."""
    if own.get("_delete_"):
        return {key: value for key, value in own.items() if key != "_delete_"}
    merged = dict(base)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _value(node: ast.expr, names: Config) -> Any:  # noqa: ANN401, PLR0911 - any plain value
    """What an expression of literals, `dict(...)`, arithmetic and earlier names says."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.List(elts=elements):
            return [_value(element, names) for element in elements]
        case ast.Tuple(elts=elements):
            return tuple(_value(element, names) for element in elements)
        case ast.Dict(keys=keys, values=values):
            return _dictionary(zip(keys, values, strict=True), names)
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
            given = [(ast.Constant(k.arg) if k.arg else None, k.value) for k in keywords]
            return _dictionary(given, names)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _arithmetic(operator.mul, -1, _value(operand, names))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATIONS:
            return _arithmetic(OPERATIONS[type(op)], _value(left, names), _value(right, names))
        case ast.Name(id=name) if name in names:
            return names[name]
    raise _NotPlainError(repr(ast.unparse(node)))


def _dictionary(pairs: Iterable[tuple[ast.expr | None, ast.expr]], names: Config) -> Config:
    """Keys and values; a value without key is another dictionary to be spread out."""
    found: Config = {}
    for key, node in pairs:
        value = _value(node, names)
        spread = value if key is None else {_key(key, names): value}
        if not isinstance(spread, dict):
            raise _NotPlainError(f"'**{ast.unparse(node)}'")
        found |= spread
    return found


def _key(node: ast.expr, names: Config) -> str | int:
    key = _value(node, names)
    if not isinstance(key, str | int):
        raise _NotPlainError(f"the key {key!r}")
    return key


def _arithmetic(operation: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:  # noqa: ANN401
    """A sum or product of numbers; a sum of lists."""
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    lists = isinstance(left, list | tuple) and type(left) is type(right)
    if not numbers and not (lists and operation is operator.add):
        raise _NotPlainError("arithmetic of other things than numbers")
    try:
        return operation(left, right)
    except ArithmeticError as error:
        raise _NotPlainError(f"arithmetic that fails ({error})") from error
