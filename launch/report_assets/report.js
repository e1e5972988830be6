"use strict";
// Draws the page out of the JSON in #data; nothing is fetched.
const data = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");
const color = (i) => `var(--c${i % 8})`;
const count = new Intl.NumberFormat("en-US");
const COUNTS = { params: "parameters", macs: "multiply-adds" };

function html(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  return fill(element, attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function body(section) {
  return document.querySelector(`#${section} > div`);
}

function number(value, digits = 4) {
  if (value === null || value === undefined) return "-";
  if (Number.isInteger(value)) return count.format(value);
  return Math.abs(value) >= 1e5 ? short(value) : String(+value.toPrecision(digits));
}

function short(value, digits = 3) {
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(value) >= size) return `${+(value / size).toPrecision(digits)}${unit}`;
  }
  return String(+value.toPrecision(digits));
}

// ---- tip ----------------------------------------------------------------------------

function showTip(x, y, ...children) {
  tip.replaceChildren(...children);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = x + 14 + width > innerWidth ? x - width - 14 : x + 14;
  tip.style.left = `${Math.max(4, Math.min(left, innerWidth - width - 4))}px`;
  tip.style.top = `${Math.max(4, Math.min(y + 14, innerHeight - height - 4))}px`;
}

function hideTip() {
  tip.hidden = true;
}

// ---- axes ---------------------------------------------------------------------------

// Round values in [low, high] as [value, text]; texts differ wherever values do.
function ticks(low, high, wanted, whole = false) {
  const raw = (high - low || 1) / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const round = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const step = whole ? Math.max(1, Math.round(round)) : round;
  const digits = Math.ceil(Math.log10(Math.max(Math.abs(low), Math.abs(high)) / step)) + 1;
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) {
    found.push(Math.abs(v) < step * 1e-9 ? 0 : v);
  }
  return found.map((v) => [v, short(v, Math.min(12, Math.max(3, digits)))]);
}

function extent(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const v of values) {
    if (v === null) continue;
    low = Math.min(low, v);
    high = Math.max(high, v);
  }
  if (low > high) return [0, 1];
  const room = Math.abs(low) * 0.05 || 0.5;
  return low === high ? [low - room, high + room] : [low, high];
}

// An extent with room at both ends, so that no mark lies on the frame.
function roomy([low, high], share) {
  const room = (high - low) * share;
  return [low - room, high + room];
}

// A frame with axes: {node, px, py, ...}; px and py map values to places, of the extents
// [x0, x1] and [y0, y1].  `whole`: whether x counts something.
function frame(host, label, height, [x0, x1], [y0, y1], xLabel, whole) {
  const width = Math.max(260, host.clientWidth || 600);
  const [left, right, top, bottom] = [52, 16, 8, 34];
  const px = (v) => left + ((v - x0) / (x1 - x0)) * (width - left - right);
  const py = (v) => height - bottom - ((v - y0) / (y1 - y0)) * (height - top - bottom);
  const node = svg("svg", {
    class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0,
    "aria-label": `${label}. Arrow keys move along it.`,
  });
  for (const [v, text] of ticks(y0, y1, 4)) {
    node.append(
      svg("line", { class: "axis", x1: left, x2: width - right, y1: py(v), y2: py(v) }),
      svg("text", { x: left - 6, y: py(v) + 4, "text-anchor": "end" }, text),
    );
  }
  for (const [v, text] of ticks(x0, x1, Math.max(3, Math.floor(width / 110)), whole)) {
    const place = { x: px(v), y: height - bottom + 15, "text-anchor": "middle" };
    node.append(svg("text", place, text));
  }
  const middle = { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" };
  node.append(svg("text", middle, xLabel));
  return { node, px, py, width, height, left, right, top, bottom };
}

// Where of an SVG's own width the pointer is.
function pointerX(event, node, width) {
  const box = node.getBoundingClientRect();
  return ((event.clientX - box.left) / box.width) * width;
}

// Calls show(index) for the pointer and for the arrow keys.
function explore(node, n, nearest, show, hide) {
  let at = -1;
  node.addEventListener("pointermove", (event) => {
    at = nearest(event);
    if (at >= 0) show(at, event.clientX, event.clientY);
  });
  node.addEventListener("pointerleave", hide);
  node.addEventListener("blur", hide);
  node.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -n, End: n };
    if (event.key === "Escape") return hide();
    if (!(event.key in steps) || !n) return;
    event.preventDefault();
    at = Math.min(n - 1, Math.max(0, at + steps[event.key]));
    const box = node.getBoundingClientRect();
    show(at, box.left + box.width / 2, box.top + box.height / 2);
  });
}

// ---- curves -------------------------------------------------------------------------

function lineChart(host, label, lines) {
  const all = (key) => lines.flatMap((line) => line[key]);
  const f = frame(host, label, 230, extent(all("x")), roomy(extent(all("y")), 0.05), "round", true);
  for (const line of lines) {
    const path = line.x.map((x, i) => `${i ? "L" : "M"}${f.px(x)} ${f.py(line.y[i])}`);
    const style = { class: "line", d: path.join(""), stroke: line.color, "stroke-dasharray": line.dash };
    f.node.append(svg("path", style));
    if (line.x.length === 1) {
      const place = { cx: f.px(line.x[0]), cy: f.py(line.y[0]), r: 3, fill: line.color };
      f.node.append(svg("circle", place));
    }
  }
  const cursor = svg("line", { class: "cursor", y1: f.top, y2: f.height - f.bottom });
  cursor.style.display = "none";
  f.node.append(cursor);
  const xs = [...new Set(all("x"))].sort((a, b) => a - b);
  explore(
    f.node, xs.length,
    (event) => closest(xs, (x) => Math.abs(f.px(x) - pointerX(event, f.node, f.width))),
    (i, x, y) => {
      cursor.style.display = "";
      cursor.setAttribute("x1", f.px(xs[i]));
      cursor.setAttribute("x2", f.px(xs[i]));
      const rows = lines.map((line) => {
        const j = closest(line.x, (v) => Math.abs(v - xs[i]));
        return html("div", {}, swatch(line.color), `${line.name}: ${number(line.y[j])}`);
      });
      showTip(x, y, html("b", {}, `round ${number(xs[i])}`), ...rows);
    },
    () => { cursor.style.display = "none"; hideTip(); },
  );
  host.replaceChildren(f.node);
}

function closest(values, distance) {
  let [best, least] = [-1, Infinity];
  values.forEach((value, i) => {
    const d = distance(value);
    if (d < least) [best, least] = [i, d];
  });
  return best;
}

function swatch(paint) {
  const mark = html("i");
  mark.style.cssText = `background:${paint};display:inline-block;width:10px;height:10px;margin-right:5px;border-radius:2px`;
  return mark;
}

function legend(entries) {
  const items = entries.map(([name, paint]) => html("span", {}, swatch(paint), name));
  return html("div", { class: "legend" }, ...items);
}

function chartCard(section, title, entries, draw) {
  const host = html("div");
  const card = html("div", { class: "card" }, html("h3", {}, title));
  if (entries.length > 1) card.append(legend(entries));
  card.append(host);
  body(section).append(card);
  charts.push(() => draw(host));
}

const charts = []; // functions that draw again, where the width has changed

function curves() {
  const shown = { ...data.curves };
  const several = data.runs.length > 1;
  const rewards = several ? ["reward_mean"] : ["reward_mean", "best", "baseline"];
  const groups = several
    ? Object.keys(shown).map((name) => [name])
    : [rewards, ...Object.keys(shown).filter((n) => !rewards.includes(n)).map((n) => [n])];
  for (const group of groups) {
    const lines = [];
    data.runs.forEach((run, r) => group.forEach((name, i) => {
      const curve = run.curves[name];
      if (!curve) return;
      const paint = color(several ? r : i);
      lines.push({ ...curve, name: several ? run.name : shown[name], color: paint });
    }));
    if (!lines.length) continue;
    const title = group.length > 1 ? "reward" : shown[group[0]];
    const entries = lines.map((line) => [line.name, line.color]);
    chartCard("curves", title, entries, (host) => lineChart(host, title, lines));
  }
  if (!body("curves").children.length) body("curves").append(nothing("No round is complete yet."));
}

function nothing(text) {
  return html("p", { class: "faint" }, text);
}

// ---- ops ----------------------------------------------------------------------------

function stacked(host, label, of) {
  const f = frame(host, label, 230, extent(of.x), [0, 1], "round", true);
  const below = of.x.map(() => 0);
  of.names.forEach((name, i) => {
    const above = below.map((v, j) => v + of.shares[i][j]);
    const forth = of.x.map((x, j) => `${f.px(x)} ${f.py(above[j])}`);
    const back = of.x.map((x, j) => `${f.px(x)} ${f.py(below[j])}`).reverse();
    const area = { d: `M${[...forth, ...back].join("L")}Z`, fill: color(i), "fill-opacity": 0.8 };
    f.node.append(svg("path", area));
    above.forEach((v, j) => { below[j] = v; });
  });
  explore(
    f.node, of.x.length,
    (event) => closest(of.x, (x) => Math.abs(f.px(x) - pointerX(event, f.node, f.width))),
    (j, x, y) => {
      const rows = of.names.map((name, i) =>
        html("div", {}, swatch(color(i)), `${name}: ${(100 * of.shares[i][j]).toFixed(1)} %`));
      showTip(x, y, html("b", {}, `round ${number(of.x[j])}`), ...rows.reverse());
    },
    hideTip,
  );
  host.replaceChildren(f.node);
}

function opShares() {
  for (const run of data.runs) {
    if (!run.ops) continue;
    const entries = run.ops.names.map((name, i) => [name, color(i)]);
    const title = `${run.name}: share of each op`;
    chartCard("ops", title, entries, (host) => stacked(host, title, run.ops));
  }
  if (!body("ops").children.length) body("ops").append(nothing("No ops were sampled and scored yet, or the space has none."));
}

// ---- scatter ------------------------------------------------------------------------

function archTip({ x, y, n, r, architecture }, label) {
  const known = data.runs.flatMap((run) => run.drawn).find((d) => d.decisions === architecture.decisions);
  const parts = [`reward ${number(y)}`, `round ${number(architecture.round)}`];
  if (data.runs.length > 1) parts.unshift(data.runs[r].name);
  for (const [name, of] of Object.entries(COUNTS)) {
    if (architecture[name] !== undefined) parts.push(`${of} ${number(architecture[name])}`);
    if (of === label) label = null; // it is told exactly
  }
  if (label) parts.push(`${label} ${number(x)}`);
  const more = n > 1 ? html("div", { class: "faint" }, `the best of ${count.format(n)} trials here`) : null;
  const found = [html("b", {}, parts.join(", ")), html("pre", {}, architecture.text)];
  if (known) {
    const drawing = html("div", { class: "drawing" });
    drawing.innerHTML = known.svg;
    drawing.firstChild.style.cssText = "width:100%;height:auto";
    found.splice(1, 1, drawing);
  }
  return more ? [found[0], more, found[1]] : found;
}

function scatterChart(host, axis) {
  const points = [];
  let label = axis;
  data.runs.forEach((run, r) => {
    const of = run.scatter.axes[axis];
    if (!of) return;
    label = of.label;
    of.points.forEach(([x, y, n, place]) =>
      points.push({ x, y, n, r, architecture: run.scatter.architectures[place] }));
  });
  points.sort((a, b) => a.x - b.x);
  const all = (key) => points.map((p) => p[key]);
  const [wide, high] = [roomy(extent(all("x")), 0.03), roomy(extent(all("y")), 0.05)];
  const f = frame(host, `Reward against ${label}`, 380, wide, high, label, !axis.startsWith("cost"));
  f.node.append(svg("text", { x: f.left, y: f.top + 3 }, "reward"));
  data.runs.forEach((run) => {
    const of = run.scatter.axes[axis];
    if (!of || of.front.length < 2) return;
    const path = of.front.map((i) => of.points[i]).map(([x, y], i) =>
      (i ? `H${f.px(x)}V${f.py(y)}` : `M${f.px(x)} ${f.py(y)}`));
    f.node.append(svg("path", { class: "front", d: path.join("") }));
  });
  const most = Math.max(1, ...all("n"));
  for (const p of points) {
    const radius = 3 + 4 * Math.sqrt((p.n - 1) / Math.max(1, most - 1));
    const paint = color(p.r);
    p.node = svg("circle", { class: "point", cx: f.px(p.x), cy: f.py(p.y), r: radius, fill: paint, stroke: paint });
    f.node.append(p.node);
  }
  let last = null;
  const unmark = () => { if (last) last.classList.remove("on"); };
  explore(
    f.node, points.length,
    (event) => {
      const box = f.node.getBoundingClientRect();
      const [x, y] = [pointerX(event, f.node, f.width), ((event.clientY - box.top) / box.height) * f.height];
      const i = closest(points, (p) => Math.hypot(f.px(p.x) - x, f.py(p.y) - y));
      if (i >= 0 && Math.hypot(f.px(points[i].x) - x, f.py(points[i].y) - y) < 24) return i;
      unmark();
      hideTip();
      return -1;
    },
    (i, x, y) => {
      unmark();
      last = points[i].node;
      last.classList.add("on");
      showTip(x, y, ...archTip(points[i], label));
    },
    () => { unmark(); hideTip(); },
  );
  host.replaceChildren(f.node);
}

function scored() {
  const labels = {};
  for (const run of data.runs) {
    for (const [name, of] of Object.entries(run.scatter.axes)) if (of.points.length) labels[name] = of.label;
  }
  const names = Object.keys(labels);
  if (!names.length) return body("scored").append(nothing("Nothing has been scored yet."));
  const choice = html("select", { id: "axis" }, ...names.map((n) => html("option", { value: n }, labels[n])));
  choice.value = names.includes("params") ? "params" : names[0];
  const host = html("div");
  const note = html("p", { class: "faint" });
  const card = html("div", { class: "card" }, html("label", {}, "Horizontal axis: ", choice));
  if (data.runs.length > 1) card.append(legend(data.runs.map((run, r) => [run.name, color(r)])));
  card.append(host, note);
  body("scored").append(card);
  const draw = () => {
    scatterChart(host, choice.value);
    const counted = data.runs.map((run) => `${run.name}: ${count.format(run.counted[0])} of ${count.format(run.counted[1])} architectures counted`);
    const front = choice.value === "trial" ? "" : " The dashed line is the Pareto front.";
    const thinned = data.runs.some((run) => run.scatter.axes[choice.value]?.points.some((p) => p[2] > 1));
    note.textContent = (choice.value in COUNTS ? counted.join("; ") + "." : "") + front
      + (data.runs.some((run) => run.scatter.axes[choice.value]?.plain) ? " Rewards are without the cost of the objective." : "")
      + (thinned ? " A larger point stands for several trials and shows the best of them." : "");
  };
  choice.addEventListener("change", draw);
  charts.push(draw);
}

// ---- tables -------------------------------------------------------------------------

// columns: [title, function of a row to its value, how to show the value, class]
function table(columns, rows) {
  const head = html("tr");
  const content = html("tbody");
  const show = (sorted) => content.replaceChildren(...sorted.map((row) =>
    html("tr", {}, ...columns.map(([, value, format, kind]) => {
      const shown = format ? format(value(row)) : number(value(row));
      return html("td", { class: kind }, shown);
    }))));
  columns.forEach(([title, value, , kind]) => {
    const button = html("button", { type: "button" }, title);
    const cell = html("th", { scope: "col", class: kind ? "left" : null }, button);
    button.addEventListener("click", () => {
      const down = cell.getAttribute("aria-sort") !== "descending";
      for (const other of head.children) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      show([...rows].sort((a, b) => compare(value(a), value(b), down ? -1 : 1)));
    });
    head.append(cell);
  });
  show(rows);
  return html("div", { class: "wide" }, html("table", {}, html("thead", {}, head), content));
}

// What is missing comes last either way.
function compare(a, b, sign) {
  const missing = (v) => v === null || v === undefined;
  if (missing(a) || missing(b)) return missing(a) - missing(b);
  return sign * (typeof a === "string" ? a.localeCompare(b) : a - b);
}

const text = (value) => String(value ?? "-");

function best() {
  for (const run of data.runs) {
    if (!run.drawn.length) continue;
    const gallery = html("div", { class: "grid gallery" });
    body("best").append(html("h3", {}, run.name), gallery);
    for (const of of run.drawn) {
      const drawing = html("div", { class: "drawing", tabindex: 0 });
      drawing.innerHTML = of.svg;
      fit(drawing.firstChild);
      const sizes = Object.keys(COUNTS).filter((n) => of[n] !== undefined).map((n) => `${number(of[n])} ${COUNTS[n]}`);
      const card = html("div", { class: "card" },
        html("h3", {}, of.title), html("div", { class: "faint" }, [`reward ${number(of.reward)}`, ...sizes].join(", ")),
        drawing,
        html("details", {}, html("summary", {}, "as text"), html("pre", {}, of.text), html("pre", {}, of.encoding)));
      gallery.append(card);
    }
  }
  const rows = data.runs.flatMap((run) => run.best.map((row) => ({ ...row, run: run.name })));
  if (!rows.length) return body("best").append(nothing("Nothing has been scored yet."));
  const columns = [
    ["reward", (r) => r.reward], ["round", (r) => r.round],
    ["parameters", (r) => r.params], ["multiply-adds", (r) => r.macs],
    ["architecture", (r) => r.encoding, (v) => html("code", {}, v), "arch"],
  ];
  if (data.runs.length > 1) columns.unshift(["run", (r) => r.run, text, "left"]);
  body("best").append(html("h3", {}, "Highest rewards; click a title to sort"), table(columns, rows));
}

// As wide as there is room, but never so small that labels cannot be read.
function fit(picture) {
  const width = picture.viewBox.baseVal.width * (96 / 72); // points
  picture.style.cssText = `width:100%;max-width:${width}px;min-width:${0.65 * width}px`;
}

const percent = (value) => (value === null || value === undefined ? "-" : (100 * value).toFixed(2));

function retrained() {
  const known = data.retrained;
  if (!known) return body("retrained").append(nothing("No network was retrained yet."));
  body("retrained").append(table([
    ["network", (r) => r.name, text, "left"], ["networks", (r) => r.n],
    ["test accuracy, %", (r) => r.mean, percent], ["standard error", (r) => r.standard_error, percent],
    ["spread of networks", (r) => r.spread, percent],
    ["parameters", (r) => r.params], ["multiply-adds", (r) => r.macs],
  ], known.rows));
  const of = known.summary;
  if (of) {
    const pair = (p) => `${percent(p.mean)} ± ${percent(p.standard_error)}`;
    body("retrained").append(html("p", {},
      `Mean over runs: winner ${pair(of.winner)}, random ${pair(of.random)}, difference ${pair(of.difference)}: ${of.verdict}.`));
  }
}

// ---- summary and settings -----------------------------------------------------------

function list(pairs) {
  return html("dl", {}, ...pairs.flatMap(([k, v]) => [html("dt", {}, k), html("dd", {}, v)]));
}

function summary() {
  const grid = html("div", { class: "grid" });
  for (const run of data.runs) {
    const said = run.diagnoses.map(([kind, sentence]) => html("li", { class: kind }, sentence));
    const commands = run.commands.length
      ? [html("div", { class: "faint" }, "Commands that were run:"), html("pre", {}, run.commands.join("\n"))]
      : [nothing("The commands of this workdir were not recorded.")];
    grid.append(html("div", { class: "card" }, html("h3", {}, run.name),
      html("ul", { class: "said" }, ...said), ...commands, list(Object.entries(run.facts))));
  }
  body("summary").append(grid);
}

function settings() {
  if (data.differences.length) {
    const columns = [["key", (r) => r[0], text, "left"]];
    data.runs.forEach((run, i) => columns.push([run.name, (r) => r[i + 1], text]));
    body("settings").append(html("h3", {}, "Keys that differ"), table(columns, data.differences));
  }
  for (const run of data.runs) {
    body("settings").append(html("details", {}, html("summary", {}, `${run.name}: the resolved config`),
      html("pre", {}, JSON.stringify(run.config, null, 2))));
  }
}

// ---- the page -----------------------------------------------------------------------

summary();
curves();
opShares();
scored();
best();
retrained();
settings();
const redraw = () => charts.forEach((draw) => draw());
redraw();
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== width) redraw();
  width = innerWidth;
});
addEventListener("beforeprint", () => document.querySelectorAll("#best details").forEach((d) => { d.open = true; }));
