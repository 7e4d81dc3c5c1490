import math

import pytest

from caslon.report.blocks import Chart, Level, Series
from caslon.report.charts import MAX_LINE_POINTS, as_table, described, figure, histogram


def test_histogram_counts_every_value_once():
    edges, counts = histogram([0, 1, 2, 3, 4], bins=2)
    assert edges == [0, 2, 4]
    assert counts == [2, 3]  # the last edge belongs to the last bin


def test_log_histogram_has_equal_ratios_and_leaves_out_what_has_no_logarithm():
    edges, counts = histogram([0, -5, 1, 10, 100], bins=2, log=True)
    assert edges == pytest.approx([1, 10, 100])
    assert sum(counts) == 3


@pytest.mark.parametrize("values", [[], [float("nan")], [7, 7, 7]])
def test_histogram_of_little(values):
    _, counts = histogram(values, bins=4)
    assert sum(counts) == sum(1 for value in values if math.isfinite(value))


def test_values_that_are_not_finite_become_gaps():
    drawn = figure(Chart("t", [Series("a", [1.0, math.inf, math.nan], [0, 1, 2])]))
    assert drawn["data"][0]["y"] == [1.0, None, None]


def test_a_long_line_keeps_its_ends():
    count = 3 * MAX_LINE_POINTS + 1
    drawn = figure(Chart("t", [Series("a", list(range(count)), list(range(count)))]))["data"][0]
    assert len(drawn["x"]) <= MAX_LINE_POINTS + 1
    assert (drawn["x"][0], drawn["x"][-1]) == (0, count - 1)
    assert drawn["x"] == drawn["y"]


def test_lying_bars_swap_their_axes():
    drawn = figure(
        Chart("t", [Series("n", [3, 4], ["a", "b"])], kind="bar", horizontal=True, x_label="code", y_label="documents")
    )
    assert drawn["data"][0]["y"] == ["a", "b"]
    assert drawn["data"][0]["x"] == [3, 4]
    assert drawn["layout"]["xaxis"]["title"]["text"] == "documents"


def test_table_joins_series_on_x_and_names_units():
    chart = Chart(
        "t",
        [Series("a", [1, 2], [0, 10], unit="bits"), Series("b", [5], [10])],
        x_label="step",
        levels=[Level("xz", 1.6)],
    )
    table = as_table(chart)
    assert table.columns == ["step", "a (bits)", "b"]
    assert table.rows == [[0, 1, None], [10, 2, 5], ["xz", 1.6, None]]


def test_log_histogram_ticks_are_decades():
    axis = figure(Chart("t", [Series("a", [1, 1000])], kind="histogram", x_log=True))["layout"]["xaxis"]
    assert axis["tickvals"] == [0, 1, 2, 3]
    assert axis["ticktext"] == ["1", "10", "100", "1,000"]


def test_description_names_what_is_drawn():
    assert "loss" in described(Chart("curve", [Series("loss", [1.0])], x_label="step", y_label="nats"))


def test_a_heatmap_is_one_field_with_a_row_for_each_series():
    chart = Chart(
        "t", [Series("a", [0.1, 0.9], ["1 x", "2 x"]), Series("b", [0.9, 0.1], ["1 x", "2 x"])], kind="heatmap"
    )
    drawn = figure(chart)
    (field,) = drawn["data"]
    assert (field["type"], field["z"], field["x"], field["y"]) == (
        "heatmap",
        [[0.1, 0.9], [0.9, 0.1]],
        ["1 x", "2 x"],
        ["a", "b"],
    )
    assert drawn["layout"]["xaxis"]["type"] == "category"
