"""Errors form one family and name what is near."""

import inspect

import pytest

from bimix_tune import errors


def error_classes():
    classes = inspect.getmembers(errors, inspect.isclass)
    return [c for _, c in classes if c.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", error_classes())
def test_one_family_that_others_can_catch(kind):
    assert issubclass(kind, errors.BimixError)
    assert kind.__doc__


def test_training_errors_are_caught_together():
    assert issubclass(errors.DivergedError, errors.TrainingError)
    assert issubclass(errors.OutOfMemoryError, errors.TrainingError)


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("trails", ["trials", "seed"], "; did you mean 'trials'? Known: seed, trials"),
        ("zzz", ["trials", "seed"], ". Known: seed, trials"),
        ("sed", iter(["seed"]), "; did you mean 'seed'? Known: seed"),
    ],
)
def test_did_you_mean(name, known, hint):
    assert errors.did_you_mean(name, known) == hint


def test_missing_extra_says_what_to_install():
    error = errors.missing_extra("ray", "ray", "the executor")
    assert isinstance(error, ImportError)
    assert str(error) == (
        "the executor needs 'ray', which is not installed: pip install 'bimix-tune[ray]'"
    )
