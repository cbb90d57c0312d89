"use strict";
// Charts from the data that the page brings, the keyboard, light and dark. The pages work without it.

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const dataOf = (id) => JSON.parse(document.getElementById(id)?.textContent ?? "null");
const escaped = (text) => { const box = document.createElement("i"); box.textContent = text; return box.innerHTML; };
const grouped = (number) => number == null ? "" : number.toLocaleString("en").replaceAll(",", "\u202f");
const charts = new Map();

function chart(id, options, height) {
  const box = document.getElementById(id);
  if (!box) return null;
  if (height) box.style.height = `${height}px`;
  echarts.getInstanceByDom(box)?.dispose();
  const made = echarts.init(box, null, { renderer: "canvas" });
  made.setOption(options);
  charts.set(id, made);
  return made;
}

const base = () => ({
  animation: false,
  textStyle: { color: colour("ink"), fontFamily: "system-ui, sans-serif" },
  tooltip: { backgroundColor: colour("panel"), borderColor: colour("line"), textStyle: { color: colour("ink") }, confine: true },
});

function timeline() {
  const bars = dataOf("timeline-data");
  if (!bars) return;
  // The pipelines that ran last have a line each, the rest share one, so that the chart stays in sight.
  const latest = [...new Set(bars.map((bar) => bar[2]))];
  const own = new Set(latest.slice(0, latest.length > 18 ? 17 : 18));
  const rest = `${latest.length - own.size} others`;
  bars.forEach((bar) => { if (!own.has(bar[2])) { bar[3] = `${bar[2]} ${bar[3]}`; bar[2] = rest; } });
  const names = [...own].sort().reverse();
  if (latest.length > own.size) names.unshift(rest);
  const drawn = bars.map((bar) => ({ value: [bar[0], bar[1], names.indexOf(bar[2]), ...bar.slice(3)] }));
  const made = chart("timeline", {
    ...base(),
    tooltip: { ...base().tooltip, formatter: ({ value }) =>
      `<b>${escaped(names[value[2]])}</b><br>${new Date(value[0]).toISOString().slice(0, 19).replace("T", " ")} UTC` +
      `<br>${escaped(value[3])} ${grouped(Math.round((value[1] - value[0]) / 100) / 10)} s` +
      (value[6] == null ? "" : `<br>${grouped(value[6])} rows`) + (value[7] == null ? "" : `<br>${escaped(value[7])}`) },
    grid: { left: 8, right: 16, top: 8, bottom: 52, containLabel: true },
    xAxis: { type: "time", useUTC: true, axisLabel: { color: colour("faint") }, axisLine: { lineStyle: { color: colour("line") } }, splitLine: { show: true, lineStyle: { color: colour("line") } } },
    yAxis: { type: "category", data: names, axisLabel: { color: colour("ink"), width: 190, overflow: "truncate" }, axisTick: { show: false }, axisLine: { show: false } },
    useUTC: true,
    // A run at the edge of the window is still in it: not filtered, only clipped.
    dataZoom: [{ type: "slider", filterMode: "none", height: 18, bottom: 6, borderColor: colour("line"), textStyle: { color: colour("faint") } }, { type: "inside", filterMode: "none", zoomOnMouseWheel: "ctrl" }],
    series: [{
      type: "custom", data: drawn, encode: { x: [0, 1], y: 2 }, clip: true,
      renderItem: (_, api) => {
        const start = api.coord([api.value(0), api.value(2)]);
        const end = api.coord([api.value(1), api.value(2)]);
        const height = Math.min(18, Math.max(5, api.size([0, 1])[1] * 0.6));
        return {
          type: "rect",
          shape: { x: start[0], y: start[1] - height / 2, width: Math.max(4, end[0] - start[0]), height, r: 2 },
          style: { fill: colour(api.value(4) || "plain"), opacity: 0.9 },
          emphasis: { style: { opacity: 1, stroke: colour("ink"), lineWidth: 1 } },
        };
      },
    }],
  }, 96 + names.length * 20);
  made?.on("click", ({ value }) => { location.href = `/run/${encodeURIComponent(value[5])}`; });
}

function flow() {
  const picture = dataOf("flow-data");
  if (!picture) return;
  // Eight places side by side need some width: on a phone the picture is scrolled.
  document.getElementById("flow").style.minWidth = `${Math.min(1000, picture.nodes.length * 125)}px`;
  const ends = new Set(picture.links.map((link) => link.target));
  const of = { quarantined: "warn", superseded: "plain", lost: "bad", "from nowhere": "bad" };
  chart("flow", {
    ...base(),
    tooltip: { ...base().tooltip, formatter: ({ data, dataType, name, value }) => dataType === "edge"
      ? `${escaped(data.source)} → ${escaped(data.target)}: <b>${grouped(data.value)}</b> rows` +
        (data.broken.length ? `<br>does not close: ${escaped(data.broken.join(", "))}` : "")
      : `${escaped(name)}: <b>${grouped(value)}</b> rows` },
    series: [{
      type: "sankey", nodeAlign: "right", left: 8, right: 130, top: 12, bottom: 12, nodeGap: 22, nodeWidth: 14, draggable: false,
      label: { color: colour("ink"), formatter: ({ name, value }) => `${name}  ${grouped(value)}` },
      // What joins the flow on its way has its name on the free side.
      data: picture.nodes.map((name) => ({ name, label: { position: name !== picture.nodes[0] && !ends.has(name) ? "left" : "right" }, itemStyle: { color: colour(of[name] ?? "accent"), borderWidth: 0 } })),
      links: picture.links.map((link) => ({ ...link, lineStyle: {
        color: colour(link.broken.length ? "bad" : of[link.target] ?? "accent"), opacity: link.broken.length ? 0.6 : 0.28 } })),
      emphasis: { focus: "adjacency" },
    }],
  }, 320);
}

function graph() {
  const picture = dataOf("graph-data");
  if (!picture) return;
  const columns = 1 + Math.max(...picture.nodes.map((node) => node.x));
  document.getElementById("graph").style.minWidth = `${columns * 165}px`;
  const hidden = { show: false, type: "value" };
  const made = chart("graph", {
    ...base(),
    tooltip: { ...base().tooltip, formatter: ({ name, dataType }) => dataType === "edge" ? "" : escaped(name) },
    grid: { left: 20, right: 20, top: 10, bottom: 10 },
    xAxis: { ...hidden, min: 0, max: columns - 0.2 },
    yAxis: { ...hidden, min: -0.5, max: picture.height - 0.5, inverse: true },
    series: [{
      type: "graph", coordinateSystem: "cartesian2d", layout: "none", symbolSize: 14,
      edgeSymbol: ["none", "arrow"], edgeSymbolSize: 7,
      lineStyle: { color: colour("faint"), opacity: 0.6 },
      label: { show: true, position: "bottom", color: colour("ink") },
      data: picture.nodes.map((node) => ({
        name: node.id, value: [node.x + 0.4, node.y], symbol: node.kind === "job" ? "roundRect" : "circle",
        itemStyle: { color: colour(node.kind === "job" ? "warn" : "accent") }, label: { formatter: node.label },
      })),
      links: picture.links,
      emphasis: { focus: "adjacency" },
    }],
  }, Math.max(150, 20 + picture.height * 44));
  made?.on("click", ({ dataType, name }) => { if (dataType === "node") location.href = `/lineage?node=${encodeURIComponent(name)}`; });
}

function draw() { timeline(); flow(); graph(); }

function toggleTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
  draw();
}

function step(by) {
  const runs = [...document.querySelectorAll("a.run")];
  const at = runs.indexOf(document.activeElement);
  runs[Math.max(0, Math.min(runs.length - 1, at + by))]?.focus();
}

const keys = {
  "/": () => document.getElementById("q")?.focus(),
  j: () => step(1),
  k: () => step(-1),
  h: () => { location.href = "/"; },
  t: toggleTheme,
  "?": () => document.getElementById("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "");
  if (typing && event.key === "Escape") document.activeElement.blur();
  if (typing || document.getElementById("help").open || !(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
});
document.getElementById("help-button").addEventListener("click", keys["?"]);
document.getElementById("theme-button").addEventListener("click", toggleTheme);
document.addEventListener("change", (event) => { if (event.target.matches("[data-submits]")) event.target.form.submit(); });
// What is not asked for need not be in the address.
document.addEventListener("htmx:configRequest", ({ detail }) => {
  for (const [name, value] of Object.entries(detail.parameters)) if (value === "") delete detail.parameters[name];
});
document.addEventListener("htmx:afterSettle", (event) => { if (event.target.id === "results") draw(); });
document.addEventListener("htmx:historyRestore", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
addEventListener("resize", () => charts.forEach((made) => made.isDisposed() || made.resize()));
draw();
