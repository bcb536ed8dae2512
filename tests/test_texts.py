"""Compact columns behave as lists, sets and dictionaries of the same values."""

from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_transfer.texts import HashSet, Numbers, Partition, Positions, Texts, Values, distinct_pairs, hashes

NAMES = st.lists(st.text(st.characters(codec=None), max_size=4), max_size=20)
few = settings(max_examples=50, deadline=None)


@few
@given(NAMES)
def test_texts_come_back_as_they_were_and_bytes_that_are_not_utf_8_too(names):
    names = [*names, "R\udce9my.png"]
    texts = Texts(names)
    assert list(texts) == names and texts == names and texts[-1] == names[-1] and list(texts[1:3]) == names[1:3]


@few
@given(NAMES, NAMES)
def test_keys_are_found_where_they_are(names, others):
    known, positions = HashSet(names), Positions(names)
    assert len(known) == len(set(names)) and all((name in known) == (name in names) for name in others)
    for name in {*names, *others}:
        assert positions.of(name) == [k for k, other in enumerate(names) if other == name]
    repeated = HashSet.repeated(names)
    assert all((name in repeated) == (names.count(name) > 1) for name in names)


@few
@given(st.lists(st.integers(0, 5), max_size=30))
def test_a_partition_has_the_positions_of_equal_keys_in_the_order_of_the_first(keys):
    expected = defaultdict(list)
    for position, key in enumerate(keys):
        expected[key].append(position)
    parts = Partition(np.array(keys, np.int64))
    assert [part.tolist() for part in parts] == list(expected.values())
    assert all(parts.numbers[position] == number for number, part in enumerate(parts) for position in part)


@few
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc")), max_size=30))
def test_distinct_pairs_are_counted(pairs):
    codes = np.array([code for code, _ in pairs], np.int64)
    counts = distinct_pairs(codes, hashes(other for _, other in pairs), 4)
    assert counts.tolist() == [len({other for code, other in pairs if code == k}) for k in range(4)]


@few
@given(st.lists(st.none() | st.integers(-5, 2**53)), st.lists(st.none() | st.floats(allow_nan=False)), NAMES)
def test_compact_columns_have_the_same_values_of_the_same_types(integers, floats, names):
    for column, values in (
        (Numbers(integers, int), integers),
        (Numbers(floats, float), floats),
        (Values(names), names),
    ):
        assert list(column) == values and list(map(type, column)) == list(map(type, values))
