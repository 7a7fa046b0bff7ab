"use strict";
// The part of time that all charts show, and what moves it. charts.js and memory_map.js watch it.
const data = JSON.parse(document.getElementById("data").textContent);
const NS = 1e9;
const seconds = data.time_ns.map((ns) => ns / NS);
const whole = { from: seconds[0], to: Math.max(seconds[seconds.length - 1], seconds[0] + 1e-9) };
const view = { from: whole.from, to: whole.to };
const watchers = [];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return (unit === 0 ? value.toFixed(0) : value.toPrecision(3)) + " " + units[unit];
}

function duration(ns) {
  const units = [[6e10, "min"], [1e9, "s"], [1e6, "ms"], [1e3, "us"]];
  for (const [size, name] of units) if (ns >= size) return +(ns / size).toPrecision(3) + " " + name;
  return ns + " ns";
}

function show(from, to) {
  const least = (whole.to - whole.from) / 5000;
  if (to - from < least) { const middle = (from + to) / 2; from = middle - least / 2; to = middle + least / 2; }
  const span = Math.min(to - from, whole.to - whole.from);
  view.from = Math.max(whole.from, Math.min(from, whole.to - span));
  view.to = view.from + span;
  document.getElementById("shown").textContent =
    view.from.toFixed(2) + " to " + view.to.toFixed(2) + " s";
  for (const watcher of watchers) watcher();
}

function zoom(factor, at) {
  const middle = at === undefined ? (view.from + view.to) / 2 : at;
  show(middle - (middle - view.from) * factor, middle + (view.to - middle) * factor);
}

function move(share) {
  const step = (view.to - view.from) * share;
  show(view.from + step, view.to + step);
}

// What keys do on every chart; false where a key means nothing here.
function timeKey(event) {
  const actions = {
    ArrowLeft: () => move(-0.2), ArrowRight: () => move(0.2),
    "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2),
    Home: () => show(whole.from, whole.to),
  };
  const action = event.ctrlKey || event.metaKey || event.altKey ? undefined : actions[event.key];
  if (action) { action(); event.preventDefault(); }
  return action !== undefined;
}

function connect(id, action) {
  const element = document.getElementById(id);
  if (element) element.addEventListener(element.tagName === "SELECT" ? "change" : "click", action);
}

connect("closer", () => zoom(0.5));
connect("wider", () => zoom(2));
connect("earlier", () => move(-0.3));
connect("later", () => move(0.3));
connect("all", () => { show(whole.from, whole.to); });
connect("phase", (event) => {
  const phase = data.phases[event.target.value];
  if (phase) show(phase.start_ns / NS, phase.end_ns / NS);
  else show(whole.from, whole.to);
});

// Colours and widths are drawn, so they are drawn again when the page's change.
function redrawn(draw) {
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("beforeprint", () => { document.documentElement.dataset.print = ""; draw(); });
  addEventListener("afterprint", () => { delete document.documentElement.dataset.print; draw(); });
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; draw(); } });
}
