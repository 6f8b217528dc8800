"""Which validation text is read, how much of it, and the mean over it."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from bimix_tune.training.evaluate import (
    EVALUATION_SHARE,
    FORWARD_COST,
    Evaluator,
    affordable_tokens,
    fixed_windows,
)


@given(st.integers(2, 300), st.integers(1, 20), st.integers(1, 50))
def test_windows_lie_within_the_text_and_do_not_overlap(size: int, length: int, count: int) -> None:
    if size <= length:
        return
    windows = fixed_windows(np.arange(size, dtype=np.uint16), length, count)
    assert windows.shape == (min(count, (size - 1) // length), length + 1)
    assert (np.diff(windows, axis=1) == 1).all()
    assert (np.diff(windows[:, 0]) >= length).all()
    assert windows[0, 0] == 0
    assert windows[-1, -1] == size - 1 or len(windows) == 1


@given(st.integers(10**4, 10**9), st.integers(1, 20), st.integers(1, 12))
def test_evaluation_takes_its_share_at_most(tokens: int, targets: int, evaluations: int) -> None:
    early, last = affordable_tokens(10**12, tokens, targets, evaluations)
    read = targets * (early * (evaluations - 1) + last)
    assert FORWARD_COST * read <= EVALUATION_SHARE * tokens
    assert last >= early
    assert affordable_tokens(7, 10**9, 1, 1) == (7, 7)


def test_losses_are_means_over_windows_in_the_unit() -> None:
    text = np.array([0, 1, 0, 1, 0, 1, 1], dtype=np.uint16)
    p_one = 0.75
    row = torch.tensor([1 - p_one, p_one]).log()
    evaluator = Evaluator({"t": text}, 2, 6, {"t": 10.0}, device=torch.device("cpu"), micro_batch=2)
    loss = evaluator.losses(lambda _, labels: -row[labels].sum())["t"]
    labels = fixed_windows(text, 2, 3)[:, 1:]
    wanted = -np.mean(np.where(labels == 1, np.log(p_one), np.log(1 - p_one)))
    assert loss == pytest.approx(10 * wanted, rel=1e-6)
