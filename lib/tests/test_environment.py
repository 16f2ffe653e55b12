"""A wrong Python and a missing package are told in one sentence, before anything else fails in a less clear way."""

from __future__ import annotations

import pytest

from explainers import _check_environment


def test_this_environment_will_do():
    _check_environment()


@pytest.mark.parametrize("python", [(3, 10), (3, 14), (2, 7)])
def test_wrong_python_is_named(python):
    with pytest.raises(
        ImportError, match=r"needs Python 3\.11, 3\.12 or 3\.13, this is " + r"\.".join(map(str, python))
    ):
        _check_environment(python=python)


@pytest.mark.parametrize("python", [(3, 11), (3, 12), (3, 13)])
def test_each_supported_python_is_taken(python):
    _check_environment(python=python)


def test_all_missing_packages_are_named_in_one_sentence():
    with pytest.raises(ImportError) as caught:
        _check_environment(needed=["numpy", "no_such_package", "nor_this"])
    message = str(caught.value)
    assert "needs no_such_package, nor_this, which" in message
    assert "numpy" not in message
    assert "\n" not in message
