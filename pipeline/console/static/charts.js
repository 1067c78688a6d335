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
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", timeZone: "UTC" });
const date = new Intl.DateTimeFormat("en-GB", { day: "2-digit", month: "short", timeZone: "UTC" });
const colour = (name) => () => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// The scale is that of square roots, as in the SVG: what is drawn are roots, what is told are the numbers themselves.
const ticks = (plot, axis, low, high) => {
  const chosen = [];
  for (const root of TICKS.map(Math.sqrt)) {
    if (root <= high && root >= high / 8 && (chosen.at(-1) ?? Infinity) - root >= high / 6) chosen.push(root);
  }
  return [0, ...chosen.reverse()];
};

const times = (plot, at) => at.map((at_s) => (at_s % (DAY_H * HOUR_S) ? clock : date).format(at_s * 1000));

const options = (told, width) => {
  const axis = { stroke: colour("muted"), font: "12px system-ui, sans-serif" };
  const lines = { stroke: colour("line"), width: 1 };
  const bars = uPlot.paths.bars({ size: [0.9, Infinity], gap: 0 });
  const edge = { stroke: colour("link"), width: 1, points: { show: false } };
  return {
    width, height: width < 500 ? 180 : 220, legend: { show: false },
    tzDate: (at_s) => uPlot.tzDate(new Date(at_s * 1000), "Etc/UTC"),
    cursor: { y: false, points: { show: false }, drag: { x: true, y: false } },
    scales: { x: { range: (plot, low, high) => [low - HOUR_S / 2, high + HOUR_S / 2] }, y: { range: (plot, low, high) => [0, high * 1.03] } },
    axes: [
      { ...axis, grid: { show: false }, ticks: lines, values: times, space: 60 },
      { ...axis, grid: lines, ticks: { show: false }, size: 52, splits: ticks, values: (plot, at) => at.map((root) => whole.format(root * root)) },
    ],
    bands: [{ series: [3, 4], fill: () => `${colour("band")()}b3` }],
    series: [
      {}, { paths: bars, fill: colour("bar"), points: { show: false } }, { paths: bars, fill: colour("bad"), points: { show: false } },
      edge, edge, { ...edge, dash: [4, 3] },
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
    readout.classList.remove("muted");
    readout.textContent = `${moment.format((at[hour] - HOUR_S / 2) * 1000)} UTC: ${requests} requests, ${errors} refused or failed`;
    box.setAttribute("aria-valuenow", hour);
    box.setAttribute("aria-valuetext", readout.textContent);
  }];
  const plot = new uPlot(set, [at, told.requests.map(Math.sqrt), told.errors.map(Math.sqrt), high, low, median], box);
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
  const last = at.length - 1, now = plot.cursor.idx ?? last;
  const to = { ArrowLeft: now - 1, ArrowRight: now + 1, PageUp: now - DAY_H, PageDown: now + DAY_H, Home: 0, End: last, Enter: now, Escape: now };
  if (!(event.key in to)) return;
  event.preventDefault();
  const hour = Math.min(Math.max(to[event.key], 0), last);
  const seen = at[hour] >= plot.scales.x.min && at[hour] <= plot.scales.x.max;
  if (event.key === "Escape") show(plot, at, 0, last);
  else if (event.key === "Enter" || !seen) show(plot, at, hour - DAY_H / 2, hour + DAY_H / 2);
  plot.setCursor({ left: plot.valToPos(at[hour], "x"), top: 0 });
};

const show = (plot, at, first, last) => plot.batch(() => plot.setScale("x", { min: at[Math.max(first, 0)], max: at[Math.min(last, at.length - 1)] }));

document.addEventListener("htmx:load", (event) => event.target.querySelectorAll("[data-plot]").forEach(draw));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach((plot) => plot.redraw(false)));
