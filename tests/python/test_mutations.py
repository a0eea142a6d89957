"""The list of mutations: each still applies to its file, and what caught it is written down."""

import re
from collections import Counter
from pathlib import Path

from commands import load

ROOT = Path(__file__).resolve().parents[2]


MUTATIONS = load("mutation/run").load()


def test_every_mutation_changes_one_line_that_stands_once():
    for mutation in MUTATIONS:
        before = (ROOT / mutation.file).read_text()
        assert before.count(mutation.find) == 1, mutation.name
        pairs = zip(before.split("\n"), mutation.apply(before).split("\n"), strict=True)
        assert sum(old != new for old, new in pairs) == 1, mutation.name


def test_every_mutation_names_tests_that_are_there():
    for mutation in MUTATIONS:
        assert mutation.tests, mutation.name
        for test in mutation.tests:
            file, _, name = test.partition("::")
            text = (ROOT / file).read_text()
            # GoogleTest's filter: suite (with its types), then the beginning of a test.
            words = re.findall(r"\w+", name.split("[")[0])
            assert all(word in text for word in words if not word.isdigit()), test


def test_they_are_spread_and_what_caught_them_is_listed():
    assert len(MUTATIONS) >= 30
    folders = Counter("/".join(Path(mutation.file).parts[:2]) for mutation in MUTATIONS)
    assert folders["csrc/linalg"] >= 8
    assert folders["csrc/qp"] >= 16
    assert folders["python/torchqp"] >= 5
    rows = re.findall(
        r"^\| (\w+) \| (\S+) \| (\S.*) \|$",
        (ROOT / "tests" / "mutation" / "caught.md").read_text(),
        re.M,
    )
    assert rows[0] == ("mutation", "file", "caught by")
    assert [row[:2] for row in rows[1:]] == [(m.name, m.file) for m in MUTATIONS]
