// --- numbers: how they are written, and where an axis puts them

const written = (value, spec) => {
  if (typeof value !== "number") return String(value);
  const [, sign, digits, kind] = /^(\+?)(?:\.(\d+))?([fgd]?)$/.exec(spec || "");
  const shown = kind === "f" ? value.toFixed(digits)
    : kind === "g" ? String(Number(value.toPrecision(digits)))
    : kind === "d" ? String(Math.round(value))
    : Math.abs(value) >= 1000 ? value.toLocaleString("en", { maximumFractionDigits: 0 })
    : String(Number(value.toPrecision(6)));
  return sign && value >= 0 ? `+${shown}` : shown;
};

const niceStep = (span, count) => {
  const rough = span / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
};

const shortened = (value, step) => {
  const size = Math.abs(value);
  const [unit, suffix] = size >= 1e9 ? [1e9, "G"] : size >= 1e6 ? [1e6, "M"] : size >= 1e4 ? [1e3, "k"] : [1, ""];
  const decimals = Math.max(0, -Math.floor(Math.log10(step / unit) + 1e-9));
  return (value / unit).toFixed(Math.min(decimals, 9)) + suffix;
};

const linearTicks = ([low, high], count, whole) => {
  const step = Math.max(niceStep(high - low, count), whole ? 1 : 0);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => {
    const value = (first + i) * step;
    return [value, value === 0 ? "0" : shortened(value, step)];
  });
};

const logarithmicTicks = ([low, high], count) => {
  const factors = high - low < 1 ? [1, 2, 3, 5, 7] : high - low < 3 ? [1, 2, 5] : [1];
  const powers = Array.from({ length: Math.ceil(high) - Math.floor(low) + 1 }, (_, i) => Math.floor(low) + i);
  const every = Math.ceil((powers.length * factors.length) / Math.max(count, 2) / 2);
  return powers.filter((power) => power % every === 0)
    .flatMap((power) => factors.map((factor) => factor * 10 ** power))
    .filter((value) => Math.log10(value) >= low - 1e-9 && Math.log10(value) <= high + 1e-9)
    .map((value) => [value, String(Number(value.toPrecision(2)))]);
};

// An axis turns values into places on a line of `length` pixels; `reach` is what it shows, in its own measure.
class Axis {
  constructor(given, values, reach) {
    this.given = given;
    this.categories = values.some((value) => typeof value === "string") ? [...new Set(values)] : null;
    this.logarithmic = given.type === "log";
    this.reach = reach(this);
  }

  measure(value) {
    if (this.categories) return typeof value === "string" ? this.categories.indexOf(value) : value;
    return this.logarithmic ? Math.log10(value) : value;
  }

  place(from, to) {
    [this.from, this.to] = this.given.autorange === "reversed" ? [to, from] : [from, to];
  }

  at(value) {
    return this.atMeasure(this.measure(value));
  }

  atMeasure(measure) {
    const [low, high] = this.reach;
    return this.from + ((measure - low) / (high - low)) * (this.to - this.from);
  }

  measureAt(pixel) {
    const [low, high] = this.reach;
    return low + ((pixel - this.from) / (this.to - this.from)) * (high - low);
  }

  // Pairs of a value and its label.
  ticks(count) {
    const { tickvals, ticktext, ticksuffix = "", nticks = count, tickformat } = this.given;
    const inside = ([value]) => this.measure(value) >= this.reach[0] && this.measure(value) <= this.reach[1];
    if (tickvals) return tickvals.map((value, i) => [value, ticktext[i]]).filter(inside);
    if (this.categories) return this.categories.map((name) => [name, name]).filter(inside);
    const most = Math.min(nticks, count);
    const found = this.logarithmic ? logarithmicTicks(this.reach, most) : linearTicks(this.reach, most, tickformat === "d");
    return found.map(([value, label]) => [value, label + ticksuffix]);
  }
}
