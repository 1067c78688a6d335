"""What must hold of every page, asked in the browser: WCAG 2.2 AA, as far as a program can tell."""

from __future__ import annotations

CONTRAST = """
(() => {
  const part = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => 0.2126 * part(c[0] / 255) + 0.7152 * part(c[1] / 255) + 0.0722 * part(c[2] / 255);
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (node) => {
    for (let n = node; n; n = n.parentElement) {
      const c = parse(getComputedStyle(n).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const node of document.querySelectorAll("main *, header *, footer")) {
    if (![...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || node.closest("svg, option")) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(node.outerHTML.slice(0, 80));
  }
  return poor;
})()
"""
"""Texts whose colour has less than 4.5 to 1 against what is behind them (1.4.3)."""

TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
"""Pixels by which the page is wider than the screen (1.4.10)."""

FAULTS = """
(() => {
  const faults = [], all = (what) => [...document.querySelectorAll(what)];
  const name = (n) => (n.getAttribute("aria-label") || n.innerText || n.getAttribute("alt") || n.title || "").trim();
  const say = (what, n) => faults.push(`${what}: ${n.outerHTML.slice(0, 90)}`);
  if (!document.documentElement.lang) faults.push("no language");
  if (!document.title.trim()) faults.push("no title");
  if (all("h1").length !== 1) faults.push(`${all("h1").length} h1`);
  for (const kind of ["header", "main", "footer"]) if (all(kind).length !== 1) faults.push(`not one ${kind}`);
  let level = 0;
  for (const h of all("h1, h2, h3, h4")) {
    if (Number(h.tagName[1]) > level + 1) say("a level of headings is left out", h);
    level = Number(h.tagName[1]);
  }
  for (const n of all("input:not([type=hidden]), select")) if (!n.labels.length) say("no label", n);
  for (const n of all("a, button")) if (!name(n) && !n.querySelector("img[alt]:not([alt=''])")) say("no name", n);
  for (const n of all("img")) if (!n.hasAttribute("alt")) say("no alternative", n);
  for (const n of all("svg")) if (n.getAttribute("role") !== "img" || !n.getAttribute("aria-label")) say("unnamed", n);
  for (const n of all("table")) if (!n.querySelector("thead th")) say("no heads", n);
  for (const n of all(".wide")) if (n.tabIndex !== 0 || !name(n)) say("can't be scrolled by keys", n);
  for (const n of all("ol > *, ul > *")) if (n.tagName !== "LI") say("no item", n);
  for (const n of all("dl > *")) if (!["DT", "DD"].includes(n.tagName)) say("no term", n);
  const ids = all("[id]").map((n) => n.id);
  if (new Set(ids).size !== ids.length) faults.push("an id stands twice");
  for (const n of all("button:not(.plain), input:not([type=hidden]), select")) {
    if (n.getBoundingClientRect().height < 24) say("too small to be hit", n);
  }
  for (const n of all("[tabindex]")) if (n.tabIndex > 0) say("jumps the order", n);
  return faults;
})()
"""
"""Language, title, landmarks, headings, labels, names, targets (1.1.1, 1.3.1, 2.4, 2.5.8, 3.1.1, 4.1.2)."""

FOCUS = """
(() => {
  const seen = [...document.querySelectorAll("a, button, input:not([type=hidden]), select, [tabindex]")];
  const bare = [];
  for (const n of seen.filter((n) => n.checkVisibility())) {
    n.focus({ focusVisible: true });
    if (document.activeElement !== n) { bare.push(`takes no focus: ${n.outerHTML.slice(0, 80)}`); continue; }
    const style = getComputedStyle(n);
    if (style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 2) bare.push(n.outerHTML.slice(0, 80));
  }
  return bare;
})()
"""
"""What takes the keyboard's focus without showing it (2.4.7)."""
