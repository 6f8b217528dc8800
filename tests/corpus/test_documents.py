"""Order, duplicates, caps and the validation split."""

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bimix_tune.corpus.documents import choose_validation, smallest_hashes

texts = st.lists(st.text(alphabet="ab ", max_size=6), max_size=60)


@given(texts, st.randoms())
def test_order_and_duplicates_of_the_input_do_not_matter(
    items: list[str], shuffler: random.Random
) -> None:
    again = items + items[:7]
    shuffler.shuffle(again)
    assert smallest_hashes(items, None) == smallest_hashes(again, None)


@given(texts)
def test_blank_texts_are_dropped_and_all_others_kept_once(items: list[str]) -> None:
    kept = [d.text for d in smallest_hashes(items, None)]
    assert sorted(kept) == sorted({t for t in items if t.strip()})


@given(texts, st.integers(1, 60))
def test_a_cap_keeps_the_beginning_of_the_order(items: list[str], cap: int) -> None:
    everything = smallest_hashes(items, None)
    kept = smallest_hashes(items, cap)
    assert kept == everything[: len(kept)]
    if len(kept) < len(everything):
        assert sum(d.size for d in kept) >= cap
        assert len(kept) <= 2 or sum(d.size for d in kept[:-1]) < cap


@given(st.lists(st.integers(1, 5000), min_size=2, max_size=80), st.floats(0.01, 0.5))
def test_both_splits_have_documents(lengths: list[int], share: float) -> None:
    chosen = choose_validation(np.array(lengths), share)
    assert chosen.any() and not chosen.all()


def test_the_share_is_met_where_documents_are_small() -> None:
    lengths = np.full(10_000, 100)
    chosen = choose_validation(lengths, 0.05)
    assert lengths[chosen].sum() == 50_000
    assert chosen[:500].all()


def test_a_small_domain_gives_up_to_a_fifth_for_evaluation() -> None:
    assert choose_validation(np.full(1000, 40), 0.05).sum() == 200  # 8,000 of 40,000
    assert choose_validation(np.full(1000, 100), 0.05).sum() == 164  # 16,384 of 100,000


def test_a_huge_document_stays_in_training() -> None:
    lengths = np.array([900_000, *[1000] * 100])
    chosen = choose_validation(lengths, 0.05)
    assert not chosen[0]
    assert 50_000 <= lengths[chosen].sum() <= 100_000


def test_among_huge_documents_the_smallest_is_held_out() -> None:
    assert choose_validation(np.array([500, 300, 400]), 0.05).tolist() == [False, True, False]
