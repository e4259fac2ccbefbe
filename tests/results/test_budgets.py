"""Budgets from the command line and from a file of TOML."""

from __future__ import annotations

import pytest

from bench.results import budgets

FILE = """
["*"]
rate = "4%"
memory = 20
["lstm*-onnxruntime-*"]
rate = "3"
compile = 50.0
["*-b64-*"]
compile = "10%"
"""
LSTM, DENSE = "lstm-h8-inference-b64-fp32-x1-onnxruntime-cpu", "dense-u8-inference-b1-fp32-x1-torch-cpu"


@pytest.fixture
def file(tmp_path):
    def written(text):
        (tmp_path / "budgets.toml").write_text(text)
        return tmp_path / "budgets.toml"

    return written


@pytest.mark.parametrize("text, value", [("5", 5.0), ("5%", 5.0), (" 2.5 % ", 2.5), (7, 7.0), ("99.9%", 99.9)])
def test_a_budget_is_a_number_of_percent(text, value):
    assert budgets.percent(text) == value


@pytest.mark.parametrize("text", ["", "0", "100%", "-1", "nan", "inf", "five", "5%%", True])
def test_another_budget_is_refused(text):
    with pytest.raises(ValueError, match="above 0 and below 100"):
        budgets.percent(text)


def test_without_a_file_the_rate_and_its_tail_have_the_budget_of_the_option():
    assert budgets.of_cases([DENSE], 5.0, []) == {DENSE: {"rate": 5.0, "mean_rate": 5.0}}


def test_of_several_patterns_the_last_counts_for_each_metric(file):
    found = budgets.of_cases([LSTM, DENSE], 5.0, budgets.load(file(FILE)))

    assert found[LSTM] == {"rate": 3.0, "mean_rate": 3.0, "memory": 20.0, "compile": 10.0}
    assert found[DENSE] == {"rate": 4.0, "mean_rate": 4.0, "memory": 20.0}


def test_a_pattern_that_fits_no_case_is_known(file):
    assert budgets.unused([DENSE], budgets.load(file(FILE))) == ["lstm*-onnxruntime-*", "*-b64-*"]


@pytest.mark.parametrize(
    "text, said",
    [
        ("rate = 5", "rate stands outside of a table"),
        ("['*']\nrates = 5", "rates"),
        ("['*']\nrate = 0", "above 0 and below 100"),
        ("['*'\n", "not TOML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(file, text, said):
    with pytest.raises(ValueError, match=said) as error:
        budgets.load(file(text))

    assert "\n" not in str(error.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        budgets.load(tmp_path / "none.toml")
