// --- the page: charts as they come near the screen, colours, tables that sort

const root = document.documentElement;
const figures = JSON.parse(document.getElementById("figures").textContent);
const holders = [...document.querySelectorAll(".chart")];
const charts = new Map();
const draw = (holder) => {
  if (charts.has(holder)) return;
  charts.set(holder, new LivingChart(holder, figures[holder.dataset.figure]));
  holder.dataset.drawn = "yes";
  wide.observe(holder);
};
const wide = new ResizeObserver((entries) => entries
  .map(({ target }) => charts.get(target))
  .filter((chart) => chart.width !== Math.max(chart.holder.clientWidth, NARROWEST))
  .forEach((chart) => chart.draw()));
const near = new IntersectionObserver((entries) => {
  for (const { target } of entries.filter((one) => one.isIntersecting)) {
    near.unobserve(target);
    draw(target);
  }
}, { rootMargin: "600px" });
// Those on the first screen are there before anything is painted.
holders.filter((holder) => holder.getBoundingClientRect().top < window.innerHeight).forEach(draw);
performance.mark("first-charts");
requestAnimationFrame(() => setTimeout(() => performance.mark("first-charts-shown")));
holders.forEach((holder) => near.observe(holder));
window.addEventListener("beforeprint", () => holders.forEach(draw));
root.dataset.ready = "yes";

// --- the reader's choice of colours
const button = document.getElementById("theme");
const themes = ["auto", "light", "dark"];
button.addEventListener("click", () => {
  const next = themes[(themes.indexOf(root.dataset.theme || "auto") + 1) % themes.length];
  if (next === "auto") delete root.dataset.theme;
  else root.dataset.theme = next;
  button.textContent = `Colours: ${next}`;
  button.setAttribute("aria-label", `Colours: ${next}. Press to change.`);
});

// --- tables sort by the column whose name is pressed
const number = (text) => {
  const found = parseFloat(text.replace(/^±/, ""));
  return Number.isNaN(found) ? null : found;
};
const units = { bytes: 1, kB: 1e3, MB: 1e6, GB: 1e9 };
const key = (text) => {
  const found = number(text);
  const unit = units[text.split(" ")[1]];
  return found !== null && unit ? found * unit : found;
};
const compare = (a, b) => {
  const [x, y] = [key(a), key(b)];
  if (x !== null && y !== null) return x - y;
  if (x !== null || y !== null) return x !== null ? -1 : 1;
  return a.localeCompare(b);
};
document.querySelectorAll("th button").forEach((head) => head.addEventListener("click", () => {
  const cell = head.parentElement;
  const rising = cell.getAttribute("aria-sort") !== "ascending";
  cell.parentElement.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
  cell.setAttribute("aria-sort", rising ? "ascending" : "descending");
  const body = cell.closest("table").tBodies[0];
  const at = cell.cellIndex;
  const rows = [...body.rows].sort((a, b) => compare(a.cells[at].textContent, b.cells[at].textContent));
  body.append(...(rising ? rows : rows.reverse()));
}));
