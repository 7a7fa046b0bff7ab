"use strict";
// Curves, by uPlot.

function axis(values, more) {
  return { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 },
    ticks: { stroke: colour("--line"), width: 1 }, values, ...more };
}

function series(line, format) {
  const stroke = colour(line.colour);
  return { label: line.label, stroke, width: line.width || 1.5, dash: line.dash || undefined,
    fill: line.fill ? stroke + "33" : undefined, show: !line.hidden, points: { show: false },
    value: (_, value) => (value === null || value === undefined ? "" : format(value)) };
}

// Round numbers of bytes.
function byteSplits(plot, axisIndex, low, high) {
  const rough = (high - low) / Math.max(2, plot.height / 45);
  const step = 2 ** Math.ceil(Math.log2(Math.max(rough, 1)));
  const splits = [];
  for (let at = Math.ceil(low / step) * step; at <= high; at += step) splits.push(at);
  return splits;
}

function phaseLines(plot) {
  const context = plot.ctx;
  context.save();
  context.strokeStyle = context.fillStyle = colour("--dim");
  context.font = 11 * devicePixelRatio + "px system-ui, sans-serif";
  context.textAlign = "left";
  context.textBaseline = "alphabetic";
  context.setLineDash([2 * devicePixelRatio, 4 * devicePixelRatio]);
  for (const phase of data.phases) {
    const at = phase.start_ns / NS, x = plot.valToPos(Math.max(at, view.from), "x", true);
    if (phase.end_ns / NS <= view.from || at >= view.to) continue;
    if (at > view.from) {
      context.beginPath();
      context.moveTo(x, plot.bbox.top);
      context.lineTo(x, plot.bbox.top + plot.bbox.height);
      context.stroke();
    }
    const room = (plot.valToPos(Math.min(phase.end_ns / NS, view.to), "x", true) - x) - 8;
    if (context.measureText(phase.name).width < room)
      context.fillText(phase.name, x + 4 * devicePixelRatio, plot.bbox.top + 12 * devicePixelRatio);
  }
  context.restore();
}

function timeChart(chart) {
  const place = document.getElementById(chart.id);
  let plot;
  const draw = () => {
    if (plot) plot.destroy();
    const width = place.clientWidth;
    const options = {
      width, height: Math.max(220, Math.min(340, width * 0.36)),
      scales: { x: { time: false, range: () => [view.from, view.to] },
        y: { range: (_, low, high) => [0, Math.max(high, 1) * 1.06] } },
      axes: [axis((_, ticks) => ticks.map((tick) => tick + " s")),
        axis((_, ticks) => ticks.map(bytes), { size: 72, splits: byteSplits })],
      series: [{ label: "time", value: (_, value) => (value === null ? "" : value.toFixed(3) + " s") },
        ...chart.lines.map((line, index) => series(line, (value) =>
          bytes(chart.stacked ? value - below(chart, index, plot.cursor.idx) : value)))],
      cursor: { sync: { key: "time" }, drag: { x: true, y: false, setScale: false },
        bind: { dblclick: () => () => { show(whole.from, whole.to); } } },
      hooks: {
        setSelect: [(u) => {
          if (u.select.width < 4) return;
          const from = u.posToVal(u.select.left, "x");
          const to = u.posToVal(u.select.left + u.select.width, "x");
          u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
          show(from, to);
        }],
        draw: [phaseLines],
      },
    };
    plot = new uPlot(options, [seconds, ...chart.lines.map((line) => line.values)], place);
  };
  redrawn(draw);
  watchers.push(() => plot.setScale("x", { min: view.from, max: view.to }));
  place.addEventListener("keydown", timeKey);
}

// What lies under a layer of a stack.
function below(chart, index, at) {
  const under = chart.lines[index + 1];
  return under && at !== null && at !== undefined ? under.values[at] : 0;
}

// Latencies that either run has, each line holding its share until its next one.
function merged(lines) {
  const times = [...new Set(lines.flatMap((line) => line.x))].sort((a, b) => a - b);
  return [times, ...lines.map((line) => {
    let next = 0;
    return times.map((time) => {
      while (next < line.x.length && line.x[next] < time) next += 1;
      return next < line.x.length ? line.values[next] : null;
    });
  })];
}

function latencyChart(chart) {
  const place = document.getElementById(chart.id);
  const share = (value) => +(100 * value).toPrecision(3) + " %";
  let plot;
  const draw = () => {
    if (plot) plot.destroy();
    const width = place.clientWidth;
    plot = new uPlot({
      width, height: Math.max(220, Math.min(340, width * 0.36)),
      scales: { x: { time: false, distr: 3 }, y: { distr: 3 } },
      axes: [axis((_, ticks) => ticks.map((tick) => (tick === null ? "" : duration(tick)))),
        axis((_, ticks) => ticks.map((tick) => (tick === null ? "" : share(tick))), { size: 72 })],
      series: [{ label: "at least", value: (_, value) => (value === null ? "" : duration(value)) },
        ...chart.lines.map((line) => ({ ...series(line, share), paths: uPlot.paths.stepped({ align: -1 }) }))],
    }, merged(chart.lines), place);
  };
  redrawn(draw);
}

show(whole.from, whole.to);
for (const chart of data.charts) timeChart(chart);
if (data.latency) latencyChart(data.latency);
if (!data.map) document.documentElement.dataset.drawn = ""; // else once the map is there, too
