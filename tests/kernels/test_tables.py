"""The tables of angular products that are compiled into the kernels: those of `mdpot.models.angular`.

`python tests/kernels/test_tables.py` writes them anew.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np

from mdpot.kernels import build
from mdpot.models.angular import MAX_ORDER, message_paths, message_table, product_paths, product_table

HEADER = build.SOURCE / "angular_tables.h"
HEAD = """\
// Written by tests/kernels/test_tables.py: the angular products of `mdpot.models.angular`, for loops that are unrolled.
#pragma once

#include <array>

namespace mdpot {

struct AngularTerm {  // of the sum `row`: a coefficient and the components that it multiplies
  int row, first, second;
  double coefficient;
};
struct MessageRow {
  int degree, path, m;
};
struct ProductPath {  // its rows begin at `row`; `invariant`: whether its product with y enters the MLP
  int degree, row;
  bool invariant;
};

template <int ORDER> struct Angular;
"""


def _number(x: float) -> float:
    """Halves without their rounding: 1.0, not 0.9999999999999999."""
    half = round(2 * x) / 2
    return half if abs(x - half) < 1e-12 else x


def products(order: int) -> list[tuple[int, int, int, float]]:
    """(row, first, second, coefficient), components from l = 1 on."""
    first, second, table = product_table(order)
    rows, pairs = np.nonzero(np.abs(table.numpy()) > 1e-12)
    return [(int(r), first[p], second[p], _number(float(table[r, p]))) for r, p in zip(rows, pairs, strict=True)]


def messages(order: int) -> list[tuple[int, int, int, float]]:
    """(row, component of the harmonics, component of what is sent, coefficient)."""
    table = message_table(order).numpy()
    places = zip(*np.nonzero(table), strict=True)
    return [(int(r), int(c) // 4, int(c) % 4, _number(float(table[r, c]))) for r, c in places]


def messages_by_source(order: int) -> list[tuple[int, int, int, float]]:
    """The same in the order of the components; those that are in no sum with the coefficient zero."""
    found = {(m, s): [] for m in range((order + 1) ** 2) for s in range(4)}
    for term in messages(order):
        found[term[1:3]].append(term)
    return [term for source, terms in found.items() for term in terms or [(0, *source, 0.0)]]


def message_rows(order: int) -> list[tuple[int, int, int]]:
    """(degree, path, m) of the messages' rows."""
    degrees = range(order + 1)
    return [(d, p, m) for d in degrees for p in range(len(message_paths(order, d))) for m in range(2 * d + 1)]


def paths(order: int) -> list[tuple[int, int, str]]:
    """(degree, first row, whether its product with y is an input) of the products' paths."""
    found, row = [], order
    for _, l2, l3 in product_paths(order):
        found.append((l3, row, "true" if l2 <= l3 else "false"))
        row += 2 * l3 + 1
    return found


def written() -> str:
    """The header's text."""
    text = HEAD
    for order in range(1, MAX_ORDER + 1):
        tables = {
            "ProductPath paths": paths(order),
            "AngularTerm products": products(order),
            "MessageRow message_rows": message_rows(order),
            "AngularTerm messages": messages(order),
            "AngularTerm messages_by_source": messages_by_source(order),
        }
        rows = 1 + max(row for row, *_ in tables["AngularTerm products"])
        text += f"\ntemplate <> struct Angular<{order}> {{\n  static constexpr int product_row_count = {rows};\n"
        for name, table in tables.items():
            kind, name = name.split()
            entries = ", ".join("{" + ",".join(str(x) for x in entry) + "}" for entry in table)
            lines = textwrap.fill(entries, 112, break_long_words=False).replace("\n", "\n      ")
            text += f"  static constexpr std::array<{kind}, {len(table)}> {name} = {{{{\n      {lines}}}}};\n"
        text += "};\n"
    return text + "\n}  // namespace mdpot\n"


def test_the_compiled_tables_are_those_of_the_network() -> None:
    assert HEADER.read_text(encoding="utf-8") == written(), "run: python tests/kernels/test_tables.py"


if __name__ == "__main__":
    Path(HEADER).write_text(written(), encoding="utf-8")
