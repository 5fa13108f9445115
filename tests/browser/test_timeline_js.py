"""Bars of the chart that come late stand in their place, beside those that were there before."""

from __future__ import annotations

from playwright.sync_api import Page

_RUN = """async () => {
  const { createChart, LineSeries, CandlestickSeries } = await import("/vendor/lightweight-charts.js");
  const { Timeline } = await import("/src/timeline.js");
  const chart = createChart(document.body, { width: 400, height: 200 });
  const [axis, line, candles] = [LineSeries, LineSeries, CandlestickSeries].map((kind) => chart.addSeries(kind));
  const series = { axis, line, candles };
  const timeline = new Timeline(series);
  timeline.load(1000, 10, 60_000, null, Float64Array.from({ length: 10 }, (_, at) => 100 + at));
  const bar = (price) => ({ o: price, h: price, l: price, c: price });
  timeline.putPrice(1015, 115);
  timeline.putPrice(1011, 111);
  timeline.putPrice(1012, 112);
  timeline.putPrice(1011, 211);
  timeline.putBar(1014 * 60_000, bar(314));
  timeline.putBar(1012 * 60_000, bar(312));
  timeline.putBar(1013 * 60_000, bar(313));
  timeline.putPrice(1016, 116);
  return {
    prices: series.line.data().map(({ time, value }) => [time / 60, value]),
    bars: series.candles.data().filter((one) => "close" in one).map(({ time, close }) => [time / 60, close]),
  };
}"""


def test_a_late_bar_takes_nobodys_place(module_page: Page) -> None:
    found = module_page.evaluate(_RUN)
    late = [[1011, 211], [1012, 112], [1013, 313], [1014, 314], [1015, 115], [1016, 116]]
    assert found["prices"] == [[1000 + at, 100 + at] for at in range(10)] + late
    assert found["bars"] == [[1012, 312], [1013, 313], [1014, 314]]
