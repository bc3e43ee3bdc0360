"""NaN: no JSON text has one, and an evaluation with one says so."""

import json

import numpy as np
import pytest

from metarl.evaluation.files import to_json
from metarl.evaluation.results import not_finite


def strict(text: str):
    """What a strict reader, such as a browser, takes from the text."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_plain_data_is_written_as_json_writes_it():
    plain = {"a": [1, 2.5, True, None, "ü", []], "b": {"c": {}}}
    assert to_json(plain, ensure_ascii=False, indent=1) == json.dumps(plain, ensure_ascii=False, indent=1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), np.float32("nan"), np.float64("inf")])
def test_what_is_not_finite_is_null_wherever_it_stands(bad):
    value = {"a": bad, "b": [1.0, bad, (bad,)], "c": {"d": {"e": bad}}, "f": np.array([[2.0, bad]])}
    expected = {"a": None, "b": [1.0, None, [None]], "c": {"d": {"e": None}}, "f": [[2.0, None]]}
    assert strict(to_json(value)) == expected and strict(to_json(bad)) is None


def test_numpy_s_numbers_are_numbers():
    value = {"n": np.int64(3), "x": np.float32(0.5), "greedy": np.bool_(True), "m": np.arange(4).reshape(2, 2)}
    assert to_json(value) == '{"n": 3, "x": 0.5, "greedy": true, "m": [[0, 1], [2, 3]]}'


def test_what_json_cannot_hold_is_still_an_error():
    with pytest.raises(TypeError):
        to_json({"a": object()})


def test_an_evaluation_with_nan_is_told():
    returns = np.zeros((2, 8, 3), np.float32)
    oracle = np.ones(8, np.float32)
    assert not_finite("test", returns=returns, random=None, oracle=oracle) is None
    returns[0, 3, 2] = np.nan
    returns[1, 3, 0] = returns[1, 5, 1] = -np.inf
    sentence = not_finite("test", returns=returns, oracle=oracle)
    assert sentence and "'test'" in sentence and "returns of 2 of 8 tasks" in sentence and "oracle" not in sentence
    sentence = not_finite("ood", returns=returns, random=None, oracle=np.full(8, np.nan))
    assert sentence and "returns of 2 of 8 tasks, oracle of 8 of 8 tasks" in sentence
