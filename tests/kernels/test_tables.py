"""The tables of angular products that are compiled into the kernels: those of `mdpot.models.angular`.

`python tests/kernels/test_tables.py` writes them anew.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mdpot.kernels import build
from mdpot.models.angular import (
    MAX_ORDER,
    MAX_SENT_ORDER,
    message_paths,
    message_table,
    product_paths,
    product_table,
)

FEATURES_HEADER = build.SOURCE / "angular_tables.h"
FEATURES_HEAD = """\
// Written by tests/kernels/test_tables.py: the angular products of `mdpot.models.angular`, for loops that are unrolled.
#pragma once

#include <array>

namespace mdpot {

struct AngularTerm {  // of the sum `row`: a coefficient and the components that it multiplies
  int row, first, second;
  double coefficient;
};
struct ProductPath {  // its rows begin at `row`; `invariant`: whether its product with y enters the MLP
  int degree, row;
  bool invariant;
};

template <int ORDER> struct Angular;
"""
MESSAGES_HEADER = build.SOURCE / "message_tables.h"
MESSAGES_HEAD = """\
// Written by tests/kernels/test_tables.py: how the harmonics of an edge and what is sent along it, of l up to SENT,
// couple (`message_table` of `mdpot.models.angular`), for loops that are unrolled.
#pragma once

#include "angular_tables.h"

namespace mdpot {

struct MessageRow {
  int degree, path, m;
};

template <int ORDER, int SENT> struct Messages;
"""
TAIL = "\n}  // namespace mdpot\n"


def _number(x: float) -> float:
    """Halves without their rounding: 1.0, not 0.9999999999999999."""
    half = round(2 * x) / 2
    return half if abs(x - half) < 1e-12 else x


def products(order: int) -> list[tuple[int, int, int, float]]:
    """(row, first, second, coefficient), components from l = 1 on."""
    first, second, table = product_table(order)
    rows, pairs = np.nonzero(np.abs(table.numpy()) > 1e-12)
    return [(int(r), first[p], second[p], _number(float(table[r, p]))) for r, p in zip(rows, pairs, strict=True)]


def messages(order: int, sent_order: int) -> list[tuple[int, int, int, float]]:
    """(row, component of the harmonics, component of what is sent, coefficient)."""
    table, n_sent = message_table(order, sent_order).numpy(), (sent_order + 1) ** 2
    places = zip(*np.nonzero(np.abs(table) > 1e-12), strict=True)
    return [(int(r), *divmod(int(c), n_sent), _number(float(table[r, c]))) for r, c in places]


def messages_by_source(order: int, sent_order: int) -> list[tuple[int, int, int, float]]:
    """The same in the order of the components; those that are in no sum with the coefficient zero."""
    found = {(m, s): [] for m in range((order + 1) ** 2) for s in range((sent_order + 1) ** 2)}
    for term in messages(order, sent_order):
        found[term[1:3]].append(term)
    return [term for source, terms in found.items() for term in terms or [(0, *source, 0.0)]]


def message_rows(order: int, sent_order: int) -> list[tuple[int, int, int]]:
    """(degree, path, m) of the messages' rows."""
    paths = [range(len(message_paths(order, degree, sent_order))) for degree in range(order + 1)]
    return [(d, p, m) for d, of_degree in enumerate(paths) for p in of_degree for m in range(2 * d + 1)]


def paths(order: int) -> list[tuple[int, int, str]]:
    """(degree, first row, whether its product with y is an input) of the products' paths."""
    found, row = [], order
    for _, l2, l3 in product_paths(order):
        found.append((l3, row, "true" if l2 <= l3 else "false"))
        row += 2 * l3 + 1
    return found


def _arrays(tables: dict[str, Sequence[tuple[object, ...]]]) -> str:
    """Tables by "type name", as constants."""
    text = ""
    for declared, table in tables.items():
        kind, name = declared.split()
        entries = ", ".join("{" + ",".join(str(x) for x in entry) + "}" for entry in table)
        lines = textwrap.fill(entries, 112, break_long_words=False).replace("\n", "\n      ")
        text += f"  static constexpr std::array<{kind}, {len(table)}> {name} = {{{{\n      {lines}}}}};\n"
    return text


def features_header() -> str:
    """The text of the header with the products of features."""
    text = FEATURES_HEAD
    for order in range(1, MAX_ORDER + 1):
        rows = 1 + max(row for row, *_ in products(order))
        text += f"\ntemplate <> struct Angular<{order}> {{\n  static constexpr int product_row_count = {rows};\n"
        text += _arrays({"ProductPath paths": paths(order), "AngularTerm products": products(order)}) + "};\n"
    return text + TAIL


def messages_header() -> str:
    """The text of the header with the couplings of what is sent."""
    text = MESSAGES_HEAD
    for sent in range(1, MAX_SENT_ORDER + 1):
        for order in range(sent, MAX_ORDER + 1):
            tables = {
                "MessageRow rows": message_rows(order, sent),
                "AngularTerm terms": messages(order, sent),
                "AngularTerm terms_by_source": messages_by_source(order, sent),
            }
            text += f"\ntemplate <> struct Messages<{order}, {sent}> {{\n{_arrays(tables)}}};\n"
    return text + TAIL


HEADERS = {FEATURES_HEADER: features_header, MESSAGES_HEADER: messages_header}


@pytest.mark.parametrize("header", HEADERS, ids=lambda path: path.name)
def test_the_compiled_tables_are_those_of_the_network(header: Path) -> None:
    assert header.read_text(encoding="utf-8") == HEADERS[header](), "run: python tests/kernels/test_tables.py"


if __name__ == "__main__":
    for path, text in HEADERS.items():
        path.write_text(text(), encoding="utf-8")
