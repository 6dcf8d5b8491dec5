// --- charts: the part of plotly's figure grammar that charts.py uses, drawn as SVG
// Colours stay names of CSS variables, so that light and dark need no second drawing.

const SVG = "http://www.w3.org/2000/svg";

const element = (name, attributes, parent, style = {}) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  Object.assign(made.style, style);
  parent.append(made);
  return made;
};

// The small markup of figures: <b>, <br> and escaped characters. Nothing of it ever becomes HTML.
const plain = (text) => text.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
const lines = (text) => String(text).split("<br>").map((line) =>
  line.split(/(<b>.*?<\/b>)/).filter(Boolean).map((part) =>
    part.startsWith("<b>") ? { bold: true, text: plain(part.slice(3, -4)) } : { bold: false, text: plain(part) }));

const pen = document.createElement("canvas").getContext("2d");
const widthOf = (text, size) => {
  pen.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
  return pen.measureText(plain(String(text))).width;
};
const widest = (ticks, size) => Math.max(0, ...ticks.map(([, label]) => widthOf(label, size)));

const isBar = (trace) => trace.type === "bar";
const isLying = (trace) => isBar(trace) && trace.orientation === "h";
const has = (trace, what) => !isBar(trace) && trace.mode.includes(what);
const axisName = (trace) => (trace.yaxis === "y2" ? "yaxis2" : "yaxis");
const of = (value, i, otherwise) => (Array.isArray(value) ? value[i] : value) ?? otherwise;

const SYMBOLS = {
  circle: (r) => `M${r},0A${r},${r} 0 1,1 ${-r},0A${r},${r} 0 1,1 ${r},0Z`,
  diamond: (r) => `M${1.3 * r},0L0,${1.3 * r}L${-1.3 * r},0L0,${-1.3 * r}Z`,
  x: (r) => `M${-r},${-r / 2}L${-r / 2},${-r}L0,${-r / 2}L${r / 2},${-r}L${r},${-r / 2}L${r / 2},0L${r},${r / 2}`
    + `L${r / 2},${r}L0,${r / 2}L${-r / 2},${r}L${-r},${r / 2}L${-r / 2},0Z`,
  star: (r) => `M${Array.from({ length: 10 }, (_, i) => {
    const [length, angle] = [(i % 2 ? 0.56 : 1.4) * r, (Math.PI * i) / 5];
    return `${length * Math.sin(angle)},${-length * Math.cos(angle)}`;
  }).join("L")}Z`,
};
const NARROWEST = 200;
const MANY = 500;
const DASHES = { dash: "7 5", dot: "2 4" };

class Chart {
  constructor(holder, figure) {
    this.holder = holder;
    this.figure = figure;
    this.hidden = new Set();
    this.zoomed = {};
    this.legend = this.makeLegend();
    this.box = document.createElement("div");
    this.box.className = "hoverlayer";
    this.box.setAttribute("role", "status");
    this.draw();
  }

  get traces() {
    return this.figure.data.filter((_, i) => !this.hidden.has(i));
  }

  makeLegend() {
    const legend = document.createElement("div");
    legend.className = "legend";
    const named = this.figure.data.map((trace, i) => [trace, i]).filter(([trace]) => trace.name && trace.showlegend !== false);
    for (const [trace, i] of named.length > 1 ? named : []) {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      button.append(this.sample(trace), plain(trace.name));
      button.addEventListener("click", () => {
        if (!this.hidden.delete(i)) this.hidden.add(i);
        button.setAttribute("aria-pressed", String(!this.hidden.has(i)));
        this.draw();
      });
      legend.append(button);
    }
    this.reset = document.createElement("button");
    this.reset.type = "button";
    this.reset.className = "reset";
    this.reset.textContent = "Show all";
    this.reset.addEventListener("click", () => this.zoom({}));
    legend.append(this.reset);
    return legend;
  }

  sample(trace) {
    const made = document.createElementNS(SVG, "svg");
    made.setAttribute("width", 18);
    made.setAttribute("height", 12);
    made.setAttribute("aria-hidden", "true");
    const color = of(trace.marker?.color, 0) || trace.line?.color || trace.fillcolor;
    if (isBar(trace) || trace.fill) element("rect", { x: 2, y: 1, width: 14, height: 10 }, made, { fill: trace.fillcolor || color });
    else {
      if (has(trace, "lines")) this.line(made, "M0,6H18", trace.line);
      if (has(trace, "markers")) {
        const shape = SYMBOLS[of(trace.marker.symbol, 0, "circle")](4);
        element("path", { d: shape, transform: "translate(9,6)" }, made, { fill: color });
      }
    }
    return made;
  }

  zoom(reaches) {
    this.zoomed = reaches;
    this.draw();
  }

  draw() {
    this.holder.replaceChildren(this.legend, this.box);
    this.reset.hidden = !Object.keys(this.zoomed).length;
    this.width = Math.max(this.holder.clientWidth, NARROWEST);
    this.height = this.figure.layout.height - this.legend.offsetHeight;
    this.size = this.width < 500 ? 11 : 12.5;
    this.root = element("svg", { class: "plot", width: this.width, height: this.height, "aria-hidden": "true" }, this.holder);
    this.hits = [];
    this.makeAxes();
    this.drawAxes();
    this.drawMarks();
    this.drawTraces();
  }

  // --- axes

  makeAxes() {
    const { layout } = this.figure;
    this.axes = { xaxis: this.axis("xaxis", "x", this.figure.data, this.traces) };
    for (const name of ["yaxis", "yaxis2"].filter((one) => layout[one])) {
      const mine = (trace) => axisName(trace) === name;
      this.axes[name] = this.axis(name, "y", this.figure.data.filter(mine), this.traces.filter(mine));
    }
    this.setMargins();
    this.axes.xaxis.place(this.left, this.width - this.right);
    for (const [name, axis] of this.upright()) {
      const [low, high] = this.span(layout[name].overlaying ? layout.yaxis : layout[name]);
      axis.place(low, high);
    }
  }

  upright() {
    return Object.entries(this.axes).filter(([name]) => name !== "xaxis");
  }

  axis(name, letter, all, shown) {
    const values = (shown.length ? shown : all).flatMap((trace) => trace[letter]);
    return new Axis(this.figure.layout[name], values, (axis) => this.zoomed[name] || this.reach(axis, letter, shown.length ? shown : all));
  }

  // What an axis shows of its traces, with some air where a mark would touch the edge.
  reach(axis, letter, traces) {
    const bars = traces.filter(isBar);
    const across = bars.length > 0 && isLying(bars[0]) === (letter === "y");
    if (across) return this.rows(axis, letter, traces);
    const found = traces.flatMap((trace) => this.extremes(trace, letter)).map((value) => axis.measure(value)).filter(Number.isFinite);
    if (bars.length && !axis.logarithmic) found.push(0, ...this.stacked(bars, letter));
    let [low, high] = [Math.min(...found), Math.max(...found)];
    if (letter === "x") [low, high] = this.withLines(low, high);
    if (low === high) [low, high] = low ? [low - Math.abs(low) / 10, high + Math.abs(high) / 10] : [-1, 1];
    const air = letter === "x" && !bars.length && !traces.some((trace) => has(trace, "markers")) ? 0 : 0.05 * (high - low);
    const flat = (bars.length && !axis.logarithmic) || axis.given.rangemode === "tozero";
    return [flat && low >= 0 ? 0 : low - air, high + air];
  }

  rows(axis, letter, traces) {
    const found = axis.categories ? axis.categories.map((_, i) => i) : traces.flatMap((trace) => trace[letter]);
    return [Math.min(...found) - 0.5, Math.max(...found) + 0.5];
  }

  extremes(trace, letter) {
    const spread = letter === "y" && trace.error_y;
    return spread
      ? trace.y.flatMap((y, i) => [y - spread.arrayminus[i], y + spread.array[i]])
      : trace[letter].filter((value) => value !== null);
  }

  stacked(bars, letter) {
    if (this.figure.layout.barmode !== "stack") return [];
    return bars[0][letter].map((_, i) => bars.reduce((sum, trace) => sum + trace[letter][i], 0));
  }

  // A limit that is not far from the data is worth the room.
  withLines(low, high) {
    const near = (this.figure.layout.shapes || []).map((shape) => shape.x0)
      .filter((x) => x >= low - (high - low) / 2 && x <= high + (high - low) / 2);
    return [Math.min(low, ...near), Math.max(high, ...near)];
  }

  setMargins() {
    const { layout } = this.figure;
    const { xaxis } = this.axes;
    const titled = (name) => (layout[name]?.title?.text ? 1.7 * this.size : 0);
    const above = layout.xaxis.side === "top";
    const labels = xaxis.categories && layout.xaxis.tickangle
      ? 0.87 * Math.min(this.longest, widest(xaxis.ticks(99), this.size)) + 1.5 * this.size : 2 * this.size;
    this.top = 8 + (layout.annotations ? 1.6 * this.size : 0) + (above ? labels + titled("xaxis") : 0);
    this.bottom = 6 + (above ? 0 : labels + titled("xaxis"));
    this.ticks = { yaxis: [], yaxis2: [] };
    for (const [name, axis] of this.upright()) {
      const [low, high] = this.span(layout[name].overlaying ? layout.yaxis : layout[name]);
      this.ticks[name] = axis.ticks(Math.max(3, Math.floor((low - high) / 42)));
    }
    const room = (name) => this.ticks[name].length && widest(this.ticks[name], this.labelSize(name)) + titled(name) + 12;
    const onRight = layout.yaxis2?.side === "right";
    this.left = Math.min(0.45 * this.width, Math.max(room("yaxis"), onRight ? 0 : room("yaxis2")));
    this.right = Math.max(14, onRight ? room("yaxis2") : 0);
    const across = this.width - this.left - this.right;
    const sparse = Math.max(2, Math.floor(across / Math.max(55, 1.6 * widest(xaxis.ticks(6), this.size))));
    this.ticks.xaxis = xaxis.ticks(sparse);
  }

  // Turned labels of the lower edge take at most a third of the height.
  get longest() {
    return this.height / 3;
  }

  labelSize(name) {
    return this.figure.layout[name].tickfont?.size || this.size;
  }

  span({ domain = [0, 1] }) {
    const height = this.height - this.top - this.bottom;
    return domain.map((share) => this.height - this.bottom - share * height);
  }

  drawAxes() {
    const { layout } = this.figure;
    for (const [name, axis] of Object.entries(this.axes)) {
      const group = element("g", { class: name }, this.root);
      if (name === "xaxis") this.drawAcross(group, axis, layout.xaxis);
      else this.drawUpright(group, name, axis, layout[name]);
    }
  }

  drawAcross(group, axis, given) {
    const above = given.side === "top";
    const [top, bottom] = [this.top, this.height - this.bottom];
    const y = above ? top - 0.6 * this.size : bottom + 1.3 * this.size;
    for (const [value, label] of this.ticks.xaxis) {
      const x = axis.at(value);
      if (!axis.categories) this.gridLine(group, { x1: x, x2: x, y1: top, y2: bottom });
      const turned = given.tickangle ? { transform: `rotate(${given.tickangle} ${x} ${y})`, "text-anchor": "end" } : { "text-anchor": "middle" };
      const shown = given.tickangle ? this.fitting(label, this.size, this.longest) : label;
      this.text(element("g", { class: "xtick" }, group), shown, { x, y, ...turned });
    }
    const middle = (this.left + this.width - this.right) / 2;
    const title = above ? top - 2.3 * this.size : this.height - 6;
    if (given.title?.text) this.text(group, given.title.text, { x: middle, y: title, "text-anchor": "middle" });
  }

  drawUpright(group, name, axis, given) {
    const right = given.side === "right";
    const edge = right ? this.width - this.right : this.left;
    for (const [value, label] of this.ticks[name]) {
      const y = axis.at(value);
      if (given.showgrid !== false && !right) this.gridLine(group, { x1: this.left, x2: this.width - this.right, y1: y, y2: y });
      const size = this.labelSize(name);
      const shown = this.fitting(label, size, this.left - 10);
      const place = { x: edge + (right ? 6 : -6), y: y + size / 3, "text-anchor": right ? "start" : "end" };
      this.text(element("g", { class: "ytick" }, group), shown, place, size);
    }
    if (!given.title?.text) return;
    const [x, y] = [right ? this.width - 4 : this.size, (axis.from + axis.to) / 2];
    this.text(group, given.title.text, { x, y, transform: `rotate(-90 ${x} ${y})`, "text-anchor": "middle" });
  }

  fitting(label, size, width) {
    let shown = plain(String(label));
    if (widthOf(shown, size) <= width) return shown;
    while (shown.length > 4 && widthOf(`${shown}…`, size) > width) shown = shown.slice(0, -1);
    return `${shown}…`;
  }

  gridLine(group, place) {
    element("line", place, group, { stroke: "var(--grid)" });
  }

  text(parent, value, place, size = this.size, color = "var(--ink)") {
    const made = element("text", place, parent, { fill: color, fontSize: `${size}px` });
    made.textContent = plain(String(value));
    return made;
  }

  // --- lines over the whole height, with their names

  drawMarks() {
    const { shapes = [], annotations = [] } = this.figure.layout;
    const inside = (x) => x >= this.left - 1 && x <= this.width - this.right + 1;
    for (const shape of shapes) {
      const x = this.axes.xaxis.at(shape.x0);
      if (inside(x)) this.line(this.root, `M${x},${this.top}V${this.height - this.bottom}`, shape.line);
    }
    for (const note of annotations) {
      const x = this.axes.xaxis.at(note.x);
      if (!inside(x)) continue;
      const half = widthOf(note.text, note.font.size) / 2;
      const middle = Math.max(half, Math.min(this.width - half, x));
      const place = { x: middle, y: this.top - 5, "text-anchor": "middle", class: "annotation-text" };
      this.text(this.root, note.text, place, note.font.size, note.font.color);
    }
  }

  line(parent, d, { color, width = 2, dash } = {}) {
    const style = { fill: "none", stroke: color, strokeWidth: width, strokeDasharray: DASHES[dash] || "none" };
    return element("path", { d }, parent, style);
  }

  // --- traces

  drawTraces() {
    const clip = `${this.holder.dataset.figure}-clip`;
    const area = { x: this.left, y: this.top - 1, width: this.width - this.left - this.right, height: this.height - this.top - this.bottom + 2 };
    element("rect", area, element("clipPath", { id: clip }, this.root));
    for (const [name, some] of [["barlayer", this.traces.filter(isBar)], ["scatterlayer", this.traces.filter((trace) => !isBar(trace))]]) {
      // Marks at the edge show whole, unless what is beyond it was zoomed away.
      const cut = name === "barlayer" || Object.keys(this.zoomed).length ? { "clip-path": `url(#${clip})` } : {};
      const layer = element("g", { class: name, ...cut }, this.root);
      some.forEach((trace, i) => {
        const group = element("g", { class: "trace" }, layer);
        if (isBar(trace)) this.drawBars(group, trace, i, some);
        else this.drawScatter(group, trace);
      });
    }
    this.ring = element("circle", { r: 0, class: "ring" }, this.root, { fill: "none", stroke: "var(--ink)", strokeWidth: 1.5 });
  }

  drawBars(group, trace, i, bars) {
    const { barmode } = this.figure.layout;
    const lying = isLying(trace);
    const [along, across] = lying ? [this.axes.xaxis, this.axes[axisName(trace)]] : [this.axes[axisName(trace)], this.axes.xaxis];
    const [values, rows] = lying ? [trace.x, trace.y] : [trace.y, trace.x];
    const share = barmode === "group" ? 0.8 / bars.length : trace.width || 0.8;
    const shift = barmode === "group" ? (i - (bars.length - 1) / 2) * share : 0;
    values.forEach((value, j) => {
      const below = barmode === "stack" ? bars.slice(0, i).reduce((sum, one) => sum + (lying ? one.x : one.y)[j], 0) : 0;
      const start = along.logarithmic ? along.from : along.at(below);
      const end = along.at(below + value);
      const row = across.measure(rows[j]) + shift;
      const edges = [across.atMeasure(row - share / 2), across.atMeasure(row + share / 2)];
      const [length, thick] = [[Math.min(start, end), Math.abs(end - start)], [Math.min(...edges), Math.abs(edges[1] - edges[0])]];
      const [[x, width], [y, height]] = lying ? [length, thick] : [thick, length];
      const point = element("g", { class: "point" }, group);
      element("path", { d: `M${x},${y}h${width}v${height}h${-width}Z` }, point, { fill: of(trace.marker.color, j) });
      this.hits.push({ trace, i: j, x: lying ? end : x + width / 2, y: lying ? y + height / 2 : end, bar: { x, y, width, height, lying }, r: 0 });
    });
  }

  drawScatter(group, trace) {
    const [xaxis, yaxis] = [this.axes.xaxis, this.axes[axisName(trace)]];
    const places = trace.x.map((x, i) => (trace.y[i] === null ? null : [xaxis.at(x), yaxis.at(trace.y[i])]));
    const known = places.filter(Boolean);
    if (trace.fill) element("path", { d: `M${known.join("L")}Z` }, group, { fill: trace.fillcolor });
    else if (has(trace, "lines")) this.line(group, this.path(known, trace.line), trace.line);
    if (trace.error_y) this.drawErrors(group, trace, places, yaxis);
    const many = has(trace, "markers") && known.length > MANY && !Array.isArray(trace.marker.color);
    if (many) this.drawMany(group, trace.marker, known);
    places.forEach((place, i) => {
      if (!place) return;
      const r = has(trace, "markers") ? of(trace.marker.size, i, 6) / 2 : 0;
      if (r && !many) this.drawMarker(group, trace.marker, i, place, r);
      if (trace.hoverinfo !== "skip") this.hits.push({ trace, i, x: place[0], y: place[1], r });
    });
  }

  path(places, line) {
    if (line.shape !== "hv") return `M${places.join("L")}`;
    return places.map(([x, y], i) => (i ? `H${x}V${y}` : `M${x},${y}`)).join("");
  }

  drawMarker(group, marker, i, [x, y], r) {
    const style = { fill: of(marker.color, i), opacity: marker.opacity ?? 1 };
    if (marker.line) Object.assign(style, { stroke: marker.line.color, strokeWidth: marker.line.width });
    element("path", { class: "point", d: SYMBOLS[of(marker.symbol, i, "circle")](r), transform: `translate(${x},${y})` }, group, style);
  }

  // Thousands of equal dots as one shape: a browser takes most of a second to lay out as many elements.
  drawMany(group, { size = 6, color, opacity = 1 }, places) {
    const r = size / 2;
    const dots = places.map(([x, y]) => `M${x - r},${y}a${r},${r} 0 1,0 ${size},0a${r},${r} 0 1,0 ${-size},0`);
    element("path", { class: "points", d: dots.join("") }, group, { fill: color, opacity });
  }

  drawErrors(group, trace, places, axis) {
    const { array, arrayminus, color, thickness } = trace.error_y;
    const d = places.map((place, i) => place && `M${place[0]},${axis.at(trace.y[i] - arrayminus[i])}V${axis.at(trace.y[i] + array[i])}`);
    this.line(group, d.filter(Boolean).join(""), { color, width: thickness });
  }
}
