// From a figure's data to uPlot, in place of the server's SVG: a cursor that tells each hour, drag to zoom, arrow keys.
"use strict";
const HOUR_S = 3600;
const DAY_H = 24;
const TICKS = [1, 2, 5].flatMap((n) => Array.from({ length: 10 }, (_, power) => n * 10 ** power)).sort((a, b) => b - a);
const plots = new Set();
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const moment = new Intl.DateTimeFormat("en-GB", {
  weekday: "short", day: "2-digit", month: "short", hour: "2-digit", minute: "2-digit", timeZone: "UTC",
});
const colour = (name) => () => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);

// The scale is that of square roots, as in the SVG: what is drawn are roots, what is told are the numbers themselves.
const ticks = (plot, axis, low, high) => {
  const chosen = [];
  for (const root of TICKS.map(Math.sqrt)) {
    if (root <= high && root >= high / 8 && (chosen.at(-1) ?? Infinity) - root >= high / 6) chosen.push(root);
  }
  return [0, ...chosen.reverse()];
};

const options = (told, width) => {
  const axis = { stroke: colour("muted"), font: "12px system-ui, sans-serif" };
  const lines = { stroke: colour("line"), width: 1 };
  const bars = uPlot.paths.bars({ size: [0.9, Infinity], gap: 0 });
  const edge = { stroke: colour("link"), width: 0.5, points: { show: false } };
  return {
    width, height: width < 500 ? 180 : 220, legend: { show: false },
    tzDate: (at_s) => uPlot.tzDate(new Date(at_s * 1000), "Etc/UTC"),
    cursor: { y: false, points: { show: false }, drag: { x: true, y: false } },
    scales: { x: { range: (plot, low, high) => [low - HOUR_S / 2, high + HOUR_S / 2] }, y: { range: (plot, low, high) => [0, high * 1.03] } },
    axes: [
      { ...axis, grid: { show: false }, ticks: lines },
      { ...axis, grid: lines, ticks: { show: false }, size: 52, splits: ticks, values: (plot, at) => at.map((root) => whole.format(root * root)) },
    ],
    bands: [{ series: [1, 2], fill: colour("band") }],
    series: [
      {}, edge, edge, { ...edge, width: 1, dash: [4, 3] },
      { paths: bars, fill: colour("bar"), points: { show: false } }, { paths: bars, fill: colour("bad"), points: { show: false } },
    ],
    hooks: { draw: [(plot) => mark(plot, told.marks)] },
  };
};

const mark = (plot, marks) => {
  const { left, top, width, height } = plot.bbox;
  plot.ctx.fillStyle = colour("bad")();
  for (const at_s of marks) {
    const x = plot.valToPos(at_s, "x", true);
    if (x >= left && x <= left + width) plot.ctx.fillRect(x - devicePixelRatio, top, 2 * devicePixelRatio, height);
  }
};

const draw = (figure) => {
  const told = JSON.parse(figure.dataset.plot), still = figure.querySelector(".wide"), readout = figure.querySelector(".readout");
  const at = told.requests.map((_, hour) => told.from + (hour + 0.5) * HOUR_S);
  const [low, median, high] = told.usual.map((value) => at.map(() => Math.sqrt(value)));
  const box = Object.assign(document.createElement("div"), { className: "plot-box", tabIndex: 0, role: "slider" });
  still.before(box);
  still.hidden = readout.hidden = false;
  const set = options(told, box.clientWidth);
  set.hooks.setCursor = [(plot) => {
    const hour = plot.cursor.idx;
    if (hour == null) return;
    const [requests, errors] = [told.requests[hour], told.errors[hour]].map(whole.format);
    readout.textContent = `${moment.format((at[hour] - HOUR_S / 2) * 1000)} UTC: ${requests} requests, ${errors} refused or failed`;
    box.setAttribute("aria-valuenow", hour);
    box.setAttribute("aria-valuetext", readout.textContent);
  }];
  const plot = new uPlot(set, [at, high, low, median, told.requests.map(Math.sqrt), told.errors.map(Math.sqrt)], box);
  for (const [name, value] of Object.entries({ label: still.querySelector("svg").getAttribute("aria-label"), valuemin: 0, valuemax: at.length - 1, valuenow: 0 })) {
    box.setAttribute(`aria-${name}`, value);
  }
  still.hidden = true;
  box.addEventListener("keydown", (event) => steer(event, plot, at));
  plots.add(plot);
  new ResizeObserver((_, watch) => {
    if (box.isConnected) return plot.setSize({ width: box.clientWidth, height: plot.height });
    watch.disconnect();
    plots.delete(plot);
    plot.destroy();
  }).observe(box);
};

const steer = (event, plot, at) => {
  const last = at.length - 1, hour = plot.cursor.idx ?? last;
  const to = { ArrowLeft: hour - 1, ArrowRight: hour + 1, PageUp: hour - DAY_H, PageDown: hour + DAY_H, Home: 0, End: last }[event.key];
  if (to !== undefined) {
    const x = at[Math.min(Math.max(to, 0), last)];
    if (x < plot.scales.x.min || x > plot.scales.x.max) around(plot, at, x);
    plot.setCursor({ left: plot.valToPos(x, "x"), top: 0 });
  } else if (event.key === "Enter") around(plot, at, at[hour]);
  else if (event.key === "Escape") plot.setScale("x", { min: at[0], max: at[last] });
  else return;
  event.preventDefault();
};

const around = (plot, at, x) => plot.setScale("x", {
  min: Math.max(at[0], x - DAY_H * HOUR_S / 2), max: Math.min(at.at(-1), x + DAY_H * HOUR_S / 2),
});

document.addEventListener("htmx:load", (event) => event.target.querySelectorAll("[data-plot]").forEach(draw));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach((plot) => plot.redraw(false)));
