"use strict";
(() => {
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const charts = [...document.querySelectorAll(".chart")];
  const narrow = () => window.innerWidth < 560;

  // --- colours: a figure names CSS variables, which differ between light and dark
  const resolve = (value, style) => {
    if (typeof value === "string") {
      return value.startsWith("var(") ? style.getPropertyValue(value.slice(4, -1)).trim() : value;
    }
    if (Array.isArray(value)) return value.map((item) => resolve(item, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolve(item, style)]));
    }
    return value;
  };
  const axis = (given, style) => ({
    gridcolor: style.getPropertyValue("--grid").trim(), linecolor: style.getPropertyValue("--line").trim(),
    automargin: true, fixedrange: narrow(), ...given, title: { ...given.title, standoff: 8 },
  });
  const layout = (figure, style) => {
    const ink = style.getPropertyValue("--ink").trim();
    const surface = style.getPropertyValue("--surface").trim();
    const own = figure.layout;
    const axes = Object.entries(own).filter(([key]) => /^[xy]axis/.test(key));
    return {
      ...own, ...Object.fromEntries(axes.map(([key, value]) => [key, axis(value, style)])),
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, family: getComputedStyle(document.body).fontFamily, size: narrow() ? 11 : 12.5 },
      hoverlabel: { bgcolor: surface, bordercolor: style.getPropertyValue("--muted").trim(), align: "left",
        font: { color: ink, size: 12 } },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", ...(own.annotations ? { y: 1.07 } : {}) },
      margin: { l: 8, r: 12, t: own.annotations ? 48 : 30, b: 8 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: style.getPropertyValue("--muted").trim(), activecolor: ink },
      dragmode: narrow() ? false : "zoom",
    };
  };
  const options = { displaylogo: false, displayModeBar: narrow() ? false : "hover", responsive: true, scrollZoom: false,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]] };
  const draw = (chart) => {
    const style = getComputedStyle(root);
    const figure = resolve(figures[chart.dataset.figure], style);
    window.Plotly.react(chart, figure.data, layout(figure, style), options);
    chart.dataset.drawn = "yes";
  };
  const redraw = () => charts.filter((chart) => chart.dataset.drawn).forEach(draw);

  // --- the plotting library is unpacked once the text is on the screen
  const unpack = async () => {
    const packed = atob(document.getElementById("plotly").textContent);
    const bytes = new Uint8Array(packed.length);
    for (let i = 0; i < packed.length; i += 1) bytes[i] = packed.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  };
  const start = async () => {
    await unpack();
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries.filter((one) => one.isIntersecting)) {
        seen.unobserve(entry.target);
        draw(entry.target);
      }
    }, { rootMargin: "400px" });
    charts.forEach((chart) => seen.observe(chart));
    window.addEventListener("beforeprint", () => charts.forEach(draw));
    root.dataset.ready = "yes";
  };
  if (charts.length) requestAnimationFrame(() => setTimeout(start));
  else root.dataset.ready = "yes";

  // --- the reader's choice of colours
  const button = document.getElementById("theme");
  const themes = ["auto", "light", "dark"];
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme || "auto") + 1) % themes.length];
    if (next === "auto") delete root.dataset.theme;
    else root.dataset.theme = next;
    button.textContent = `Colours: ${next}`;
    button.setAttribute("aria-label", `Colours: ${next}. Press to change.`);
    redraw();
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

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
})();
