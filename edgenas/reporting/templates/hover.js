// --- what a reader does with a chart: point at it, tap, walk through it by keys, zoom into it

const NEAR = 26;
const SMALLEST_ZOOM = 9;

const filled = (trace, i) => {
  const [shown] = trace.hovertemplate.split("<extra>");
  return shown.replace(/%\{(\w+)(?:\[(\d+)\])?(?::([^}]*))?\}/g, (_, name, at, spec) => {
    const value = of(trace[name], i);
    return written(at === undefined ? value : value[Number(at)], spec);
  });
};

const distance = ({ x, y, r, bar }, px, py) => {
  if (!bar) return Math.max(0, Math.hypot(px - x, py - y) - r);
  const [inRow, beyond] = bar.lying
    ? [py >= bar.y && py <= bar.y + bar.height, Math.max(0, bar.x - px, px - bar.x - bar.width)]
    : [px >= bar.x && px <= bar.x + bar.width, Math.max(0, bar.y - py, py - bar.y - bar.height)];
  return inRow ? Math.min(beyond, NEAR - 1) : Infinity;
};

class LivingChart extends Chart {
  constructor(holder, figure) {
    super(holder, figure);
    this.follow();
  }

  follow() {
    const at = (event) => {
      const box = this.root.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    this.holder.addEventListener("pointermove", (event) => (this.dragged ? this.stretch(at(event)) : this.point(...at(event))));
    this.holder.addEventListener("pointerdown", (event) => {
      this.point(...at(event));
      if (event.pointerType === "mouse" && event.button === 0 && event.target.closest("svg") === this.root) this.grab(at(event), event.pointerId);
    });
    this.holder.addEventListener("pointerup", () => this.release());
    this.holder.addEventListener("pointercancel", () => this.release());
    this.holder.addEventListener("pointerleave", () => this.show(null));
    this.holder.addEventListener("dblclick", () => this.zoom({}));
    this.holder.addEventListener("keydown", (event) => this.key(event));
    this.holder.addEventListener("blur", () => this.show(null));
  }

  point(px, py) {
    let [nearest, least] = [null, NEAR];
    // What is drawn later lies above and wins.
    for (let i = this.hits.length - 1; i >= 0; i -= 1) {
      const away = distance(this.hits[i], px, py);
      if (away < least) [nearest, least] = [this.hits[i], away];
    }
    if (!nearest && this.unified && py > this.top && px > this.left) nearest = this.closestAcross(px);
    this.show(nearest);
  }

  get unified() {
    return this.figure.layout.hovermode === "x unified";
  }

  closestAcross(px) {
    return this.hits.reduce((best, one) => (!best || Math.abs(one.x - px) < Math.abs(best.x - px) ? one : best), null);
  }

  show(hit) {
    this.shown = hit;
    this.box.replaceChildren();
    this.ring.setAttribute("r", hit && !this.unified ? hit.r + 4 : 0);
    if (!hit) return;
    this.ring.setAttribute("cx", hit.x);
    this.ring.setAttribute("cy", hit.y);
    const rows = this.unified ? this.column(hit) : lines(filled(hit.trace, hit.i));
    for (const row of rows) {
      const line = document.createElement("div");
      for (const part of row) {
        const made = document.createElement(part.bold ? "b" : "span");
        made.textContent = part.text;
        line.append(made);
      }
      this.box.append(line);
    }
    this.settle(hit);
  }

  // Every trace's value where one of them was pointed at.
  column(hit) {
    const x = hit.trace.x[hit.i];
    const title = this.figure.layout.xaxis.title.text;
    const here = this.hits.filter((one) => one.trace.x[one.i] === x);
    return [[{ bold: true, text: `${title} ${written(x)}` }],
      ...here.map((one) => [{ text: `${plain(one.trace.name)}: ` }, ...lines(filled(one.trace, one.i))[0]])];
  }

  settle(hit) {
    const above = this.legend.offsetHeight;
    const [width, height] = [this.box.offsetWidth, this.box.offsetHeight];
    const right = hit.x + 14 + width <= this.width;
    const left = right ? hit.x + 14 : Math.max(0, hit.x - 14 - width);
    const top = Math.max(0, Math.min(hit.y - height / 2, this.height - height));
    // Beside a point in a narrow chart there is no room: then above or below it.
    const fits = right || hit.x - 14 - width >= 0;
    const free = fits ? top : hit.y > height + 16 ? hit.y - height - 14 : hit.y + 14;
    this.box.style.left = `${fits ? left : Math.max(0, Math.min(hit.x - width / 2, this.width - width))}px`;
    this.box.style.top = `${above + free}px`;
  }

  key(event) {
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    if (event.target !== this.holder) return;
    if (event.key === "Escape") this.show(null);
    const order = this.walk();
    const at = order.indexOf(this.shown);
    const ends = { Home: 0, End: order.length - 1 };
    const next = event.key in ends ? ends[event.key] : event.key in steps ? at + steps[event.key] : null;
    if (next === null || !order.length) return;
    event.preventDefault();
    this.show(order[at < 0 && event.key in steps ? 0 : Math.max(0, Math.min(order.length - 1, next))]);
  }

  // The points in the order in which the eye reads them.
  walk() {
    const upright = this.hits.some((one) => one.bar?.lying);
    const once = this.unified ? this.hits.filter((one, i) => this.hits.findIndex((other) => other.x === one.x) === i) : this.hits;
    return [...once].sort((a, b) => (upright ? a.y - b.y || a.x - b.x : a.x - b.x || a.y - b.y));
  }

  // --- zoom: a rectangle drawn with the mouse

  grab(place, pointer) {
    if (place[0] < this.left || place[1] < this.top) return;
    this.dragged = { from: place, to: place, pointer };
    this.frame = element("rect", { width: 0, height: 0 }, this.root, { fill: "var(--band)", stroke: "var(--muted)" });
  }

  stretch(place) {
    const { from, pointer } = this.dragged;
    this.dragged.to = place;
    if (Math.hypot(place[0] - from[0], place[1] - from[1]) < SMALLEST_ZOOM) return;
    if (!this.holder.hasPointerCapture(pointer)) this.holder.setPointerCapture(pointer);
    this.show(null);
    const [x, width, y, height] = [0, 1].flatMap((i) => [Math.min(from[i], place[i]), Math.abs(from[i] - place[i])]);
    for (const [key, value] of Object.entries({ x, y, width, height })) this.frame.setAttribute(key, value);
  }

  release() {
    if (!this.dragged) return;
    const { from, to } = this.dragged;
    this.dragged = null;
    this.frame.remove();
    const large = (i) => Math.abs(from[i] - to[i]) >= SMALLEST_ZOOM;
    const between = (axis, i) => [axis.measureAt(from[i]), axis.measureAt(to[i])].sort((a, b) => a - b);
    const crossed = this.upright().filter(([, axis]) => from[1] >= Math.min(axis.from, axis.to) && from[1] <= Math.max(axis.from, axis.to));
    const found = {
      ...(large(0) ? { xaxis: between(this.axes.xaxis, 0) } : {}),
      ...(large(1) ? Object.fromEntries(crossed.map(([name, axis]) => [name, between(axis, 1)])) : {}),
    };
    if (Object.keys(found).length) this.zoom({ ...this.zoomed, ...found });
  }
}
