"""Shapes stand in one column at the ends of a forward's lines, so that they can be read down."""

import ast
import re
from pathlib import Path

import pytest

from minisd import models

FILES = sorted(Path(models.__file__).parent.glob("[a-z]*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_shapes_are_aligned_in_every_forward(file):
    source = file.read_text(encoding="utf-8")
    lines, found = source.splitlines(), 0
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name == "forward":
            body = lines[node.body[0].lineno - 1 : node.end_lineno]
            shapes = [re.search(r"\S(  +)# (?:\(|\.\.\.)", line) for line in body]
            columns = [match.end(1) for match in shapes if match]
            assert len(set(columns)) == 1, f"{file.name}:{node.lineno}: {columns}"
            found += 1
    assert found
