// The study page: figures, tables, and the document explorer. Text from the study reaches the page through textContent alone, and plotly's labels through
// `plain`, which leaves no markup in them. No request is made, but to the page's own server where `lmdissect view` serves it.
(() => {
  "use strict";

  const byId = (id) => document.getElementById(id);
  const readJson = (id) => JSON.parse(byId(id).textContent);
  const payload = readJson("payload");
  const MINUS = "\u2212", NONE = "\u2013";
  const night = matchMedia("(prefers-color-scheme: dark)");
  const element = (name, text = "", kind = "") => {
    const made = document.createElement(name);
    if (text) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  document.documentElement.classList.add("js");

  // ---- numbers, printed as lmdissect/wording.py prints them -------------------------------------------------------------------------------------------

  const withMinus = (text) => (text.startsWith("-") ? (/[1-9]/.test(text) ? MINUS : "") + text.slice(1) : text);
  const grouped = (text) => text.replace(/^(-?)(\d+)/, (_, sign, digits) => sign + digits.replace(/\B(?=(\d{3})+$)/g, ","));
  const formatPlain = (value, decimals) => withMinus(grouped(value.toFixed(decimals)));
  const formatSigned = (value, decimals) => {
    const text = formatPlain(value, decimals);
    return value > 0 && /[1-9]/.test(text) ? `+${text}` : text;
  };
  const tellingDecimals = (low, high, decimals) => {
    if (low <= 0 && 0 <= high) return decimals;
    const nearest = Math.min(Math.abs(low), Math.abs(high));
    return [0, 1, 2].map((more) => decimals + more).find((shown) => Number(nearest.toFixed(shown)) !== 0) ?? decimals;
  };
  const formatBounds = (low, high, decimals) => {
    const shown = [low, high].map((bound) => formatPlain(bound, decimals));
    if (low > 0 || high < 0) {
      const isZero = [low, high].map((bound) => Number(bound.toFixed(decimals)) === 0), [near, far] = low > 0 ? [0, 1] : [1, 0];
      const least = formatPlain(Math.sign(low) * 10 ** -decimals, decimals);
      if (isZero[near]) shown[near] = low > 0 ? "> 0" : "< 0";
      if (isZero[far]) shown[far] = low > 0 ? `< ${least}` : `> ${least}`;
    }
    return `[${shown[0]}, ${shown[1]}]`;
  };
  const formatInterval = ([estimate, low, high, decimals, unit]) => {
    const scale = unit === "% points" ? 100 : 1, behind = unit ? ` ${unit}` : "";
    if (low === null || high === null) return formatPlain(scale * estimate, decimals) + behind;
    const shown = tellingDecimals(scale * low, scale * high, decimals);
    return `${formatSigned(scale * estimate, shown)}${behind} ${formatBounds(scale * low, scale * high, shown)}`;
  };
  const formatShare = ([share, low, high]) => {
    if (low === null || high === null) return `${formatPlain(100 * share, 0)} %`;
    const shown = tellingDecimals(100 * low, 100 * high, 0);
    return `${formatPlain(100 * share, shown)} % ${formatBounds(100 * low, 100 * high, shown)}`;
  };
  const formatAmount = (value) => {
    if (Number.isInteger(value) || Math.abs(value) >= 100) return formatPlain(value, 0);
    const short = Number(value.toPrecision(3)), text = Math.abs(short) < 1e-4 ? short.toExponential().replace(/e-(\d)$/, "e-0$1") : String(short);
    return withMinus(text);
  };
  const formatAmounts = ([amount, low, high]) => (low === null ? formatAmount(amount) : `${formatAmount(amount)} [${formatAmount(low)}, ${high === null ? "open" : formatAmount(high)}]`);
  const formatP = (value) => (value < 0.001 ? "< 0.001" : value.toFixed(Number(value.toFixed(3)) === 0.05 ? 4 : 3));
  const printers = {
    text: String,
    count: (value) => formatPlain(value, 0),
    number: (value) => (Number.isInteger(value) ? formatPlain(value, 0) : formatPlain(value, Math.abs(value) < 1 ? 4 : 2)),
    amount: formatAmount,
    share: (value) => `${formatPlain(100 * value, 0)} %`,
    p: formatP,
    interval: formatInterval,
    amount_interval: formatAmounts,
    share_interval: formatShare,
  };
  const cellText = (cell, kind) => (cell === null ? NONE : printers[kind](cell));

  // ---- figures ----------------------------------------------------------------------------------------------------------------------------------------

  const GLYPHS = { circle: "\u25cf", diamond: "\u25c6", square: "\u25a0", triangle: "\u25b2", down: "\u25bc", star: "\u2605", cross: "\u271a" };
  const SYMBOLS = { circle: "circle", diamond: "diamond", square: "square", triangle: "triangle-up", down: "triangle-down", star: "star", cross: "cross" };
  let onPaper = false;
  const color = (role) => payload.roles[role][night.matches && !onPaper ? 1 : 0];
  const withAlpha = (hex, alpha) => `rgba(${[1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)).join(",")},${alpha})`;
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;"); // plotly reads a little HTML in labels: leave none
  const shorten = (text, length) => (text.length <= length ? text : `${text.slice(0, length - 1)}\u2026`);
  const markText = (chart, panel, mark) => {
    const values = [mark.estimate, mark.low, mark.high];
    return `${panel.is_share ? formatShare(values) : chart.zero ? formatInterval([...values, markDecimals(mark)]) : formatAmounts(values)} ${panel.unit}`;
  };
  const markDecimals = (mark) => {
    const half = (mark.high - mark.low) / 2 || Math.abs(mark.estimate) || 1;
    return Math.min(Math.max(1 - Math.floor(Math.log10(half)), 0), 6);
  };

  const forestTraces = (chart, panel, number) => panel.series.map((series, index) => {
    const step = 0.56 / Math.max(panel.series.length, 1);
    const offset = (index - (panel.series.length - 1) / 2) * step;
    const at = new Map(chart.rows.map((row, place) => [row, place]));
    return {
      ...traceOf(chart, panel, series, number),
      mode: "markers",
      x: series.marks.map((mark) => mark.estimate),
      y: series.marks.map((mark) => at.get(mark.label) + offset),
      error_x: errorsOf(series),
      marker: {
        symbol: series.marks.map((mark) => SYMBOLS[series.symbol] + (mark.filled ? "" : "-open")),
        size: 10, color: color(series.role), line: { color: color(series.role), width: 2 },
      },
    };
  });

  const curveTraces = (chart, panel, number) => panel.series.flatMap((series) => {
    const x = series.marks.map((mark) => mark.x), axes = axesOf(number), tone = color(series.role);
    const band = {
      type: "scatter", mode: "lines", x: [...x, ...x.slice().reverse()], y: [...series.marks.map((mark) => mark.high), ...series.marks.map((mark) => mark.low).reverse()],
      fill: "toself", fillcolor: withAlpha(tone, 0.14), line: { width: 0 }, hoverinfo: "skip", legendgroup: series.name, ...axes,
    };
    const line = {
      ...traceOf(chart, panel, series, number), mode: "lines+markers", x, y: series.marks.map((mark) => mark.estimate),
      line: { color: tone, width: 2 }, marker: { symbol: SYMBOLS[series.symbol], size: 7, color: tone },
    };
    return [band, line];
  });

  const axesOf = (number) => ({ xaxis: `x${number ? number + 1 : ""}`, yaxis: `y${number ? number + 1 : ""}` });
  const traceOf = (chart, panel, series, number) => {
    const texts = series.marks.map((mark) => [series.name, shorten(mark.label, 80), markText(chart, panel, mark), mark.hover].filter(Boolean));
    return {
      type: "scatter", legendgroup: series.name, ...axesOf(number),
      text: texts.map((lines) => lines.map((line) => plain(shorten(line, 90))).join("<br>")), hovertemplate: "%{text}<extra></extra>",
      meta: { said: texts.map((lines) => lines.join(", ")) },
    };
  };
  const errorsOf = (series) => ({
    type: "data", symmetric: false, thickness: 2, width: 0, color: color(series.role),
    array: series.marks.map((mark) => mark.high - mark.estimate), arrayminus: series.marks.map((mark) => mark.estimate - mark.low),
  });

  // Room for every estimate and interval, but a very wide interval among narrow ones may not flatten the rest.
  const rangeOf = (panels, withZero) => {
    const marks = panels.flatMap((panel) => panel.series.flatMap((series) => series.marks));
    const estimates = marks.map((mark) => mark.estimate);
    const lowest = Math.min(...estimates), highest = Math.max(...estimates);
    const halves = marks.map((mark) => (mark.high - mark.low) / 2).sort((one, other) => one - other);
    const room = Math.max(1.5 * (highest - lowest), 3 * halves[Math.floor(halves.length / 2)]) || Math.max(Math.abs(lowest), Math.abs(highest)) || 0.01;
    let low = Math.max(Math.min(...marks.map((mark) => mark.low)), lowest - room), high = Math.min(Math.max(...marks.map((mark) => mark.high)), highest + room);
    const middle = (low + high) / 2;
    if (withZero) [low, high] = [Math.min(low, 0), Math.max(high, 0)];
    else if (high - low < 0.2 * Math.abs(middle)) [low, high] = [middle - 0.1 * Math.abs(middle), middle + 0.1 * Math.abs(middle)]; // amounts that agree to many digits
    const margin = 0.06 * (high - low) || 0.001;
    return [low - margin, high + margin];
  };

  // 1, 2, 5, 10, 20 ... between the lowest and the highest bound.
  const logAxis = (panel) => {
    const bounds = panel.series.flatMap((series) => series.marks.flatMap((mark) => [mark.low, mark.high])).filter((bound) => bound > 0);
    const [low, high] = [Math.min(...bounds), Math.max(...bounds)].map(Math.log10), isFar = high - low > 2.2;
    const places = Array.from({ length: Math.ceil(high) - Math.floor(low) + 1 }, (_, step) => 10 ** (Math.floor(low) + step)).flatMap((ten) => (isFar ? [ten] : [ten, 2 * ten, 5 * ten]));
    return { type: "log", range: [low - 0.08, high + 0.08], tickmode: "array", tickvals: places, ticktext: places.map((place) => formatPlain(place, place < 1 ? 1 : 0)) };
  };

  const layoutOf = (chart, width, isLog) => {
    const isForest = chart.kind === "forest", isWide = width >= (isForest ? 680 : 820) && chart.panels.length > 1; // narrower columns would cut a curve's title
    const columns = isWide ? Math.min(chart.panels.length, 3) : 1, rows = Math.ceil(chart.panels.length / columns);
    const most = Math.max(...chart.panels.map((panel) => panel.series.length));
    const panelHeight = isForest ? Math.max(chart.rows.length, 1) * (Math.max(most * 15 + 16, 36)) + 12 : 230;
    const titleHeight = 28, bottom = 52, height = rows * (titleHeight + panelHeight + bottom);
    const isNarrow = width < 480, labelLength = isNarrow ? 18 : 34; // on a phone a label takes two lines
    const labelLines = chart.rows.map((row) => (isNarrow ? row.split(" \u00b7 ") : [row]).map((line) => plain(shorten(line, labelLength))));
    const left = isForest ? Math.min(7.2 * Math.max(0, ...labelLines.flat().map((line) => line.length)) + 14, width * 0.44) : 76;
    const inner = width - left - 14, gap = isForest ? 26 / inner : (chart.same_scale ? 26 : 74) / inner;
    const layout = {
      width, height, margin: { l: left, r: 14, t: 0, b: 0, pad: 0 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
      font: { family: "system-ui,-apple-system,'Segoe UI',Roboto,sans-serif", size: 13, color: color("ink") }, dragmode: false, annotations: [], shapes: [],
      showlegend: false,
      hoverlabel: { bgcolor: color("surface"), bordercolor: color("muted"), font: { color: color("ink"), size: 13 }, align: "left" },
      uirevision: chart.name,
    };
    const shared = chart.same_scale ? rangeOf(chart.panels, chart.zero) : null;
    const grid = { gridcolor: color("rule"), zeroline: false, linecolor: color("muted"), tickfont: { color: color("muted"), size: 12 }, automargin: false };
    chart.panels.forEach((panel, number) => {
      const row = Math.floor(number / columns), column = number % columns, suffix = number ? number + 1 : "";
      const span = (1 - gap * (columns - 1)) / columns, from = column * (span + gap);
      const top = 1 - (row * (titleHeight + panelHeight + bottom) + titleHeight) / height;
      const range = shared || rangeOf([panel], chart.zero);
      const xDomain = [from, from + span], yDomain = [top - panelHeight / height, top];
      const unit = { text: plain(panel.unit), font: { size: 12, color: color("muted") }, standoff: 6 };
      if (isForest) {
        layout[`xaxis${suffix}`] = { ...grid, domain: xDomain, anchor: `y${suffix}`, title: unit, nticks: isNarrow ? 4 : 6, ...(isLog ? logAxis(panel) : { type: "linear", range }) };
        layout[`yaxis${suffix}`] = {
          ...grid, domain: yDomain, anchor: `x${suffix}`, range: [chart.rows.length - 0.5, -0.5], showgrid: false, tickmode: "array", tickvals: chart.rows.map((_, place) => place),
          ticktext: column ? chart.rows.map(() => "") : labelLines.map((lines) => lines.join("<br>")), tickfont: { color: color("ink"), size: 13 },
        };
      } else {
        const every = Math.max(1, Math.ceil(chart.ticks.length / (span * inner / 52)));
        const ticks = chart.ticks.filter((_, place) => place % every === 0);
        layout[`xaxis${suffix}`] = {
          ...grid, domain: xDomain, anchor: `y${suffix}`, type: isLog ? "log" : "linear", showgrid: false, title: { ...unit, text: plain(chart.x_name) },
          tickmode: "array", tickvals: ticks.map((tick) => tick.at), ticktext: ticks.map((tick) => plain(shorten(tick.text, 12))), tickangle: 0, showline: true,
        };
        const isLabelled = !column || !chart.same_scale;
        layout[`yaxis${suffix}`] = { ...grid, domain: yDomain, anchor: `x${suffix}`, range, nticks: 6, showticklabels: isLabelled, tickformat: panel.is_share ? ".0%" : "", title: isLabelled ? unit : undefined };
      }
      if (chart.zero) {
        const place = isForest ? { x0: 0, x1: 0, xref: `x${suffix}`, y0: yDomain[0], y1: yDomain[1], yref: "paper" } : { y0: 0, y1: 0, yref: `y${suffix}`, x0: xDomain[0], x1: xDomain[1], xref: "paper" };
        layout.shapes.push({ type: "line", ...place, layer: "below", line: { color: color("muted"), width: 1.2 } });
      }
      if (panel.title) {
        layout.annotations.push({
          text: plain(shorten(panel.title, Math.floor(span * inner / 7.4))), x: xDomain[0], xref: "paper", xanchor: "left", y: top, yref: "paper", yanchor: "bottom", showarrow: false, font: { size: 13, weight: 600, color: color("ink") }, // <b> would set a style attribute, which the policy refuses
        });
      }
    });
    return layout;
  };

  const PAPER_WIDTH = 660;

  class Figure {
    constructor(root) {
      this.root = root;
      this.plot = root.querySelector(".plot");
      this.still = root.querySelector(".static");
      this.choose = root.querySelector("[data-choose]");
      this.log = root.querySelector("[data-log]");
      this.first = this.name = root.dataset.charts.split(" ")[0];
      this.keys = root.querySelector(".keys");
      this.at = -1;
      this.hiddenNames = new Set();
      if (this.choose) this.choose.addEventListener("change", () => this.show(this.choose.value));
      this.log.addEventListener("change", () => this.draw());
      this.plot.addEventListener("keydown", (event) => this.step(event));
      this.show(this.name, false);
    }

    show(name, draw = true) {
      this.name = name;
      this.at = -1;
      this.hiddenNames.clear();
      const chart = payload.charts[name];
      const places = chart.kind === "curve" ? chart.ticks.map((tick) => tick.at) : [];
      this.log.closest("label").hidden = !(places.length > 1 && places[0] > 0);
      this.log.checked = chart.is_log;
      this.root.querySelector("[data-caption]").textContent = chart.caption;
      this.plot.setAttribute("aria-label", `${chart.label}. Arrow keys go from number to number; all numbers are in the table.`);
      const downloads = this.root.querySelector("[data-downloads]");
      downloads.hidden = !chart.is_static;
      for (const link of downloads.querySelectorAll("a")) link.setAttribute("href", link.getAttribute("href").replace(/[^/]+(?=\.\w+$)/, name));
      if (draw) this.draw();
    }

    draw(width = this.root.clientWidth) {
      const chart = payload.charts[this.name];
      this.plot.hidden = false;
      this.still.hidden = true;
      const isLog = chart.kind === "forest" ? chart.is_log : this.log.checked;
      const traces = chart.panels.flatMap((panel, number) => (chart.kind === "forest" ? forestTraces : curveTraces)(chart, panel, number));
      for (const trace of traces) trace.visible = !this.hiddenNames.has(trace.legendgroup);
      this.showKeys(chart);
      const config = { displayModeBar: false, responsive: false, scrollZoom: false, doubleClick: "reset", showTips: false };
      this.drawn = Plotly.react(this.plot, traces, layoutOf(chart, Math.max(width, 260), isLog), config);
      this.plot.dataset.drawn = this.name;
    }

    // On paper stands the figure that was chosen, above its own caption: the static one where it is that, else the drawn one, in light colours and with its legend.
    print() {
      this.wasDrawn = !this.plot.hidden;
      const isStatic = this.name === this.first && !this.hiddenNames.size;
      this.root.classList.toggle("on-paper", !isStatic);
      if (!isStatic) this.draw(PAPER_WIDTH);
      this.plot.hidden = isStatic;
      this.still.hidden = !isStatic;
    }

    endPrint() {
      this.root.classList.remove("on-paper");
      this.plot.hidden = !this.wasDrawn;
      this.still.hidden = this.wasDrawn;
      if (this.wasDrawn) this.draw();
    }

    // The legend: a button for every series, which hides and shows it.
    showKeys(chart) {
      const series = new Map(chart.panels.flatMap((panel) => panel.series.map((entry) => [entry.name, entry])));
      this.keys.replaceChildren(...[...series.values()].map((entry) => {
        const item = element("li"), button = element("button"), glyph = element("span", GLYPHS[entry.symbol]);
        glyph.style.color = color(entry.role);
        glyph.setAttribute("aria-hidden", "true");
        button.type = "button";
        button.setAttribute("aria-pressed", String(!this.hiddenNames.has(entry.name)));
        button.append(glyph, ` ${entry.name}`);
        button.addEventListener("click", () => {
          if (!this.hiddenNames.delete(entry.name)) this.hiddenNames.add(entry.name);
          const place = [...series.keys()].indexOf(entry.name);
          this.draw();
          this.keys.children[place].firstChild.focus();
        });
        item.append(button);
        return item;
      }));
    }

    // Arrow keys go from number to number: what a pointer reads by resting on a mark, keys and screen readers read too.
    step(event) {
      const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!move || !this.plot.data) return;
      event.preventDefault();
      const marks = this.plot.data.flatMap((trace, curveNumber) => (trace.meta && trace.visible ? trace.meta.said.map((said, pointNumber) => ({ curveNumber, pointNumber, said })) : []));
      this.at = (this.at + move + marks.length) % marks.length;
      const { curveNumber, pointNumber, said } = marks[this.at];
      const axes = this.plot.data[curveNumber];
      Plotly.Fx.hover(this.plot, [{ curveNumber, pointNumber }], [`${axes.xaxis}${axes.yaxis}`]);
      this.root.querySelector("[data-said]").textContent = said;
    }
  }

  const figures = new Map([...document.querySelectorAll("figure.chart")].map((root) => [root, new Figure(root)]));
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      figures.get(entry.target).draw();
    }
  }, { rootMargin: "600px" });
  for (const root of figures.keys()) watcher.observe(root);
  const redraw = () => { for (const figure of figures.values()) if (!figure.plot.hidden) figure.draw(); };
  night.addEventListener("change", redraw);
  let waiting = 0, lastWidth = innerWidth;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { if (innerWidth !== lastWidth) { lastWidth = innerWidth; redraw(); reader.redrawRulers(); } }, 120);
  });
  addEventListener("beforeprint", () => { onPaper = true; for (const figure of figures.values()) figure.print(); });
  addEventListener("afterprint", () => { onPaper = false; for (const figure of figures.values()) figure.endPrint(); });

  // ---- tables -----------------------------------------------------------------------------------------------------------------------------------------

  const sortKey = (cell) => (Array.isArray(cell) ? cell[0] : cell);
  const compareCells = (one, other) => {
    const [a, b] = [sortKey(one), sortKey(other)];
    if (a === null || b === null) return (a === null) - (b === null);
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  };
  const LATEX = {
    "\\": "\\textbackslash{}", "{": "\\{", "}": "\\}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", _: "\\_", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}",
    "<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}", '"': "\\textquotedbl{}", "[": "{[}", "]": "{]}", "*": "{*}", [MINUS]: "$-$", [NONE]: "--",
    "\u00a0": "~", "\n": " ", "\t": " ", "\ufffd": "?",
  };
  const escapeLatex = (text) => text.replace(/[\\{}&%$#_~^<>|"[\]*\u2212\u2013\u00a0\n\t\ufffd]/g, (character) => LATEX[character]);
  const escapeCsv = (text) => (/[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text);
  const save = (name, text) => {
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const status = element("p", "", "sr"), labels = new Map(), timers = new Map();
  status.setAttribute("role", "status");
  document.body.append(status);
  const tell = (button, text) => {
    if (!labels.has(button)) labels.set(button, button.textContent);
    clearTimeout(timers.get(button));
    button.textContent = status.textContent = text;
    timers.set(button, setTimeout(() => { button.textContent = labels.get(button); status.textContent = ""; }, 2500));
  };
  const copy = async (text, area, button) => {
    try {
      await navigator.clipboard.writeText(text);
      tell(button, "Copied");
    } catch {
      area.hidden = false;
      area.value = text;
      area.focus();
      area.select();
      tell(button, "Selected: press Ctrl-C");
    }
  };

  class Table {
    constructor(root) {
      this.root = root;
      this.table = payload.tables[root.dataset.table];
      this.rows = this.table.rows;
      this.filtered = this.rows;
      this.limit = payload.first_rows;
      this.order = null;
      this.texts = null;
      root.querySelectorAll("thead th").forEach((head, index) => this.addSorter(head, index));
      root.querySelector("[data-filter]").addEventListener("input", (event) => this.filter(event.target.value));
      root.querySelector("[data-csv]").addEventListener("click", () => save(`${root.dataset.table}.csv`, this.csv()));
      const area = root.querySelector(".latex"), button = root.querySelector("[data-latex]");
      button.addEventListener("click", () => { area.value = this.latex(); copy(area.value, area, button); });
      root.querySelector("[data-more]").addEventListener("click", () => { this.limit = Infinity; this.show(); root.querySelector(".scroll").focus({ preventScroll: true }); }); // the button is gone: the rows have the focus
      this.countRows();
    }

    addSorter(head, index) {
      const button = element("button", head.textContent);
      button.type = "button";
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const isDown = this.order && this.order.index === index ? !this.order.isDown : this.table.columns[index].kind !== "text";
        this.order = { index, isDown };
        for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", isDown ? "descending" : "ascending");
        this.show();
      });
    }

    rowTexts() {
      this.texts ??= this.rows.map((row) => row.map((cell, index) => cellText(cell, this.table.columns[index].kind)).join("\n").toLowerCase());
      return this.texts;
    }

    filter(words) {
      const wanted = words.toLowerCase().split(/\s+/).filter(Boolean), texts = this.rowTexts();
      this.filtered = wanted.length ? this.rows.filter((_, place) => wanted.every((word) => texts[place].includes(word))) : this.rows;
      this.show();
    }

    sorted() {
      if (!this.order) return this.filtered;
      const { index, isDown } = this.order;
      const known = this.filtered.filter((row) => row[index] !== null), missing = this.filtered.filter((row) => row[index] === null);
      known.sort((one, other) => (isDown ? -1 : 1) * compareCells(one[index], other[index]));
      return [...known, ...missing];
    }

    shown() { return this.sorted().slice(0, this.limit); }

    show() {
      const { columns } = this.table;
      const body = document.createDocumentFragment();
      for (const row of this.shown()) {
        const line = element("tr");
        row.forEach((cell, index) => line.append(element("td", cellText(cell, columns[index].kind), columns[index].kind === "text" ? "" : "n")));
        body.append(line);
      }
      this.root.querySelector("tbody").replaceChildren(body);
      this.countRows();
    }

    countRows() {
      const shown = Math.min(this.limit, this.filtered.length);
      this.root.querySelector("[data-count]").textContent = `${formatPlain(shown, 0)} of ${formatPlain(this.rows.length, 0)} rows.`;
      this.root.querySelector("[data-more]").hidden = shown >= this.filtered.length;
    }

    // Every row that the filter leaves, at full precision; an interval is three columns.
    csv() {
      const isInterval = (column) => column.kind.endsWith("interval");
      const heads = this.table.columns.flatMap((column) => (isInterval(column) ? [column.key, `${column.key}_ci_low`, `${column.key}_ci_high`] : [column.key]));
      const values = (row) => this.table.columns.flatMap((column, index) => (isInterval(column) ? (row[index] ?? [null, null, null]).slice(0, 3) : [row[index]]));
      const { shared } = this.table;
      return [[...shared.map(([key]) => key), ...heads], ...this.sorted().map((row) => [...shared.map(([, value]) => value), ...values(row)])].map((row) => row.map((value) => (value === null ? "" : escapeCsv(String(value)))).join(",")).join("\n") + "\n";
    }

    latex() {
      const { columns, title } = this.table;
      const lines = (row) => row.map((cell, index) => escapeLatex(cellText(cell, columns[index].kind))).join(" & ") + " \\\\";
      return [
        "\\begin{table}", "\\centering\\small", `\\caption{${escapeLatex(title)}}`, `\\label{tab:${this.root.dataset.table}}`,
        `\\begin{tabular}{${columns.map((column) => (column.kind === "text" ? "l" : "r")).join("")}}`, "\\toprule",
        columns.map((column) => escapeLatex(column.label)).join(" & ") + " \\\\", "\\midrule", ...this.shown().map(lines), "\\bottomrule", "\\end{tabular}", "\\end{table}",
      ].join("\n");
    }
  }
  for (const root of document.querySelectorAll(".table")) new Table(root);

  const methodsButton = byId("copy-methods"), methodsArea = element("textarea", "", "latex");
  methodsArea.hidden = methodsArea.readOnly = true;
  methodsArea.setAttribute("aria-label", "The methods text");
  methodsButton?.addEventListener("click", () => {
    if (!methodsArea.isConnected) methodsButton.after(methodsArea);
    copy(byId("methods-text").innerText, methodsArea, methodsButton);
  });

  // ---- texts: unpacked from the page, or asked of the server --------------------------------------------------------------------------------------------

  const bytesOf = (text) => (Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (character) => character.charCodeAt(0)));
  const inflate = async (text) => new Uint8Array(await new Response(new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());
  const readVarints = (plane) => {
    const values = [];
    let value = 0, scale = 1;
    for (const byte of plane) {
      value += (byte & 0x7f) * scale;
      scale *= 128;
      if (byte < 0x80) { values.push(value); value = 0; scale = 1; }
    }
    return values;
  };

  class PackedTexts {
    constructor(index, textBlocks, tokenBlocks) {
      Object.assign(this, { index, textBlocks, tokenBlocks, texts: null });
      this.names = ["original", ...index.variants];
    }

    async runs() { return [{ label: this.index.label }]; }

    async load() { return this.index; }

    // All texts, lower case beside them: unpacked once, in the background.
    allTexts() {
      this.texts ??= Promise.all(this.textBlocks.map(async (block) => JSON.parse(new TextDecoder().decode(await inflate(block))))).then((blocks) => {
        const flat = blocks.flat();
        this.lower = Array.from({ length: this.index.documents.length }, (_, place) =>
          flat.slice(place * this.names.length, (place + 1) * this.names.length).map((text) => (text ?? "").toLowerCase()).join("\n"));
        return flat;
      });
      return this.texts;
    }

    async search(_, words) {
      await this.allTexts();
      return this.index.documents.map((_, place) => place).filter((place) => words.every((word) => this.lower[place].includes(word) || this.index.documents[place][0].toLowerCase().includes(word)));
    }

    async document(_, place) {
      const flat = await this.allTexts(), block = Math.floor(place / this.index.block_documents);
      const content = await inflate(this.tokenBlocks[block]);
      const view = new DataView(content.buffer), planes = [];
      for (let at = 0; at < content.length; at += 4 + view.getUint32(at, true)) planes.push(content.subarray(at + 4, at + 4 + view.getUint32(at, true)));
      const [counts, gaps, lengths, tokens] = planes.slice(0, 4).map(readVarints), [base, gain] = planes.slice(4);
      const firstText = block * this.index.block_documents * this.names.length, wanted = place * this.names.length;
      const found = [];
      let piece = 0, number = 0;
      for (let row = firstText; row < wanted + this.names.length; row += 1) {
        if (flat[row] === null) { if (row >= wanted) found.push(null); continue; }
        const end = piece + counts[number];
        if (row >= wanted) found.push({ text: flat[row], pieces: this.pieces(piece, end, gaps, lengths, tokens, base, gain) });
        piece = end;
        number += 1;
      }
      return this.names.map((variant, at) => (found[at] ? { variant, ...found[at] } : null)).filter(Boolean);
    }

    pieces(from, to, gaps, lengths, tokens, base, gain) {
      const { base_scale: baseScale, gain_scale: gainScale } = this.index, found = [];
      for (let at = from, end = 0; at < to; at += 1) {
        const start = end + gaps[at], steps = gain[at] - 128;
        end = start + lengths[at];
        const isScored = base[at] !== 255, value = isScored ? -((base[at] / baseScale) ** 2) : null;
        found.push([start, end, tokens[at], value, isScored ? value + Math.sign(steps) * (steps / gainScale) ** 2 : null]);
      }
      return found;
    }
  }

  // Every request names its run, so that no answer can be taken for another run's.
  class ServedTexts {
    async ask(path, parameters = {}) {
      let answer;
      try {
        answer = await fetch(`${path}?${new URLSearchParams(parameters)}`);
      } catch {
        throw new Error("The server does not answer: start lmdissect view again and open the address that it prints.");
      }
      if (!answer.ok) throw new Error(`The server could not read this: ${await answer.text()}`);
      return answer.json();
    }

    async runs() { return this.ask("runs.json"); }

    async load(run) { return this.ask("index.json", { run }); }

    async search(run, words) { return this.ask("search.json", { run, q: words.join(" ") }); }

    async document(run, place) { return this.ask("document.json", { run, place }); }
  }

  // ---- the explorer -----------------------------------------------------------------------------------------------------------------------------------

  const SCALES = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10], NUM_STEPS = 4, RULER_EVERY = [10, 20, 50, 100, 200, 500, 1000, 5000];
  const stepClass = (gain, scale) => {
    if (gain === null) return "unscored";
    const steps = Math.min(Math.floor((Math.abs(gain) / scale) * NUM_STEPS + 0.5), NUM_STEPS);
    return steps ? `${gain > 0 ? "more" : "less"}${steps}` : "";
  };
  const gainOf = (piece) => (piece[3] === null || piece[4] === null ? null : piece[4] - piece[3]);

  class TextView {
    constructor(side) {
      this.title = byId(`${side}-title`);
      this.ruler = byId(`${side}-ruler`);
      this.tokens = byId(`${side}-tokens`);
      this.said = byId("token-said");
      this.spans = [];
      this.tokens.addEventListener("pointerover", (event) => this.light(this.spans.indexOf(event.target)));
      this.tokens.addEventListener("focusin", (event) => this.light(this.spans.indexOf(event.target)));
      this.tokens.addEventListener("keydown", (event) => this.move(event));
      this.ruler.addEventListener("click", (event) => this.pick(event));
      this.ruler.setAttribute("role", "img");
    }

    show(entry, title, scale) {
      Object.assign(this, { entry, scale, at: -1 });
      this.title.textContent = title;
      this.tokens.replaceChildren();
      this.spans = [];
      if (!entry) { this.ruler.hidden = true; return; }
      this.ruler.hidden = false;
      const letters = /[\ud800-\udfff]/.test(entry.text) ? Array.from(entry.text) : null;
      const cut = (from, to) => (letters ? letters.slice(from, to).join("") : entry.text.slice(from, to));
      const body = document.createDocumentFragment();
      let done = 0, position = 0;
      this.positions = [];
      for (const piece of entry.pieces) {
        if (piece[0] > done) body.append(element("span", cut(done, piece[0]), "outside"));
        const span = element("span", cut(piece[0], piece[1]), stepClass(gainOf(piece), scale));
        span.tabIndex = this.spans.length ? -1 : 0;
        body.append(span);
        this.spans.push(span);
        this.positions.push(position);
        position += piece[2];
        done = piece[1];
      }
      const rest = cut(done, letters ? letters.length : entry.text.length);
      if (rest) body.append(element("span", rest, "outside"));
      this.tokens.append(body);
      this.numTokens = position;
      this.ruler.setAttribute("aria-label", `Gain by token position, 0 to ${Math.max(position - 1, 0)}`);
      this.drawRuler();
    }

    // One column per token, coloured by its gain, with positions beneath: where in the text the change is.
    drawRuler() {
      if (!this.entry) return;
      const ratio = devicePixelRatio || 1, width = this.ruler.clientWidth, height = 34, style = getComputedStyle(document.documentElement);
      this.ruler.width = Math.round(width * ratio);
      this.ruler.height = Math.round(height * ratio);
      const pen = this.ruler.getContext("2d");
      pen.scale(ratio, ratio);
      const unit = width / Math.max(this.numTokens, 1);
      this.entry.pieces.forEach((piece, at) => {
        const name = stepClass(gainOf(piece), this.scale);
        pen.fillStyle = style.getPropertyValue(`--${name && name !== "unscored" ? name : "rule"}`).trim();
        if (name) pen.fillRect(this.positions[at] * unit, 0, Math.max(unit * piece[2], 1), 14);
      });
      pen.fillStyle = style.getPropertyValue("--muted").trim();
      pen.fillRect(0, 14, width, 1);
      pen.font = "11px system-ui, sans-serif";
      const every = RULER_EVERY.find((count) => count * unit >= 44) ?? 10000;
      for (let at = 0; at < this.numTokens; at += every) {
        pen.fillRect(at * unit, 14, 1, 5);
        pen.textAlign = at ? "center" : "left";
        if (at * unit < width - 14) pen.fillText(String(at), at * unit, 30);
      }
      if (this.at >= 0) {
        pen.fillStyle = style.getPropertyValue("--ink").trim();
        pen.fillRect(this.positions[this.at] * unit - 0.5, 0, Math.max(unit, 2), 19);
      }
    }

    light(at) {
      if (at < 0) return;
      this.spans[this.at]?.classList.remove("on");
      this.at = at;
      this.spans[at].classList.add("on");
      const piece = this.entry.pieces[at], gain = gainOf(piece), several = piece[2] > 1 ? ` (${piece[2]} tokens)` : "";
      const word = `\u201c${shorten(this.spans[at].textContent.replace(/\n/g, "\u21b5").trim() || "space", 40)}\u201d`;
      this.said.textContent = gain === null
        ? `${word}, position ${this.positions[at]}${several}: no score, the model had no context before it.`
        : `${word}, position ${this.positions[at]}${several}: gain ${formatSigned(gain, 3)} nats (base ${formatPlain(piece[3], 3)}, tuned ${formatPlain(piece[4], 3)}).`;
      this.drawRuler();
    }

    move(event) {
      const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -Infinity, End: Infinity }[event.key];
      if (steps === undefined || !this.spans.length) return;
      event.preventDefault();
      this.focus(Math.min(Math.max(Math.max(this.at, 0) + steps, 0), this.spans.length - 1));
    }

    focus(at) {
      for (const span of this.spans) if (span.tabIndex === 0) span.tabIndex = -1;
      this.spans[at].tabIndex = 0;
      this.spans[at].focus();
    }

    pick(event) {
      const position = ((event.clientX - this.ruler.getBoundingClientRect().left) / this.ruler.clientWidth) * this.numTokens;
      const at = this.positions.findLastIndex((first) => first <= position);
      if (at >= 0) this.focus(at);
    }
  }

  class Explorer {
    constructor(source) {
      Object.assign(this, { source, run: 0, index: null, places: [], limit: 60, chosen: -1, shown: -1, texts: null });
      this.turns = { load: 0, find: 0, open: 0 }; // an answer that comes after a later question of its kind is dropped
      this.left = new TextView("left");
      this.right = new TextView("right");
      this.search = byId("doc-search");
      this.sort = byId("doc-sort");
      this.beside = byId("variant-choice");
      this.search.addEventListener("input", () => this.find());
      this.sort.addEventListener("change", () => { this.followSort(); this.list(); });
      this.beside.addEventListener("change", () => this.showTexts());
      byId("doc-more").addEventListener("click", () => { this.limit += 200; this.list(); });
    }

    async start() {
      const runChoice = byId("run-choice");
      if (runChoice) {
        try {
          for (const [number, run] of (await this.source.runs()).entries()) runChoice.append(new Option(run.label, number));
        } catch (error) {
          this.emptyList(error.message);
          return;
        }
        runChoice.addEventListener("change", () => this.load(Number(runChoice.value)));
      }
      await this.load(0);
    }

    emptyList(said) {
      this.places = [];
      byId("doc-list").replaceChildren();
      byId("doc-more").hidden = true;
      byId("doc-count").textContent = said;
    }

    emptyReader(said) {
      Object.assign(this, { texts: null, shown: -1 });
      byId("reader-body").hidden = true;
      byId("reader-empty").hidden = false;
      byId("reader-empty").textContent = said;
    }

    async load(run) {
      const turn = ++this.turns.load;
      this.turns.find += 1;
      this.turns.open += 1;
      Object.assign(this, { run, index: null, chosen: -1 }); // nothing of the former run stands under the name of this one
      this.emptyList("Reading the run \u2026");
      this.emptyReader("Choose a document.");
      let index;
      try {
        index = await this.source.load(run);
      } catch (error) {
        if (turn === this.turns.load) this.emptyList(error.message);
        return;
      }
      if (turn !== this.turns.load) return;
      this.index = index;
      const { variants } = this.index, chosen = this.beside.value;
      this.beside.replaceChildren(...variants.map((name, at) => new Option(this.index.factors[at] ? `${name} (${this.index.factors[at]})` : name, name)));
      if (variants.includes(chosen)) this.beside.value = chosen;
      const orders = [["Order of the probe set", "set"]];
      const hasNet = this.index.documents.some((line) => line[4].some((value) => value !== null));
      variants.forEach((name, at) => {
        orders.push([`${name}: shift, largest first`, `3 ${at} -1`], [`${name}: shift, smallest first`, `3 ${at} 1`]);
        if (hasNet && this.index.documents.some((line) => line[4][at] !== null)) orders.push([`${name}: net shift, largest first`, `4 ${at} -1`], [`${name}: net shift, smallest first`, `4 ${at} 1`]);
      });
      orders.push(["Gain on the original, largest first", "2 -1"], ["Gain on the original, smallest first", "2 1"]);
      this.sort.replaceChildren(...orders.map(([label, value]) => new Option(label, value)));
      if (variants.length) this.sort.value = "3 0 -1";
      await this.find();
    }

    // Sorting by a variant puts it beside the original; what the reader then chooses stays, whatever document is opened.
    followSort() {
      const wanted = this.sort.value.split(" ");
      if (wanted.length !== 3) return;
      this.beside.value = this.index.variants[Number(wanted[1])];
      this.showTexts();
    }

    async find() {
      if (!this.index) return;
      const turn = ++this.turns.find, words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let places;
      try {
        places = words.length ? await this.source.search(this.run, words) : this.index.documents.map((_, place) => place);
      } catch (error) {
        if (turn === this.turns.find) this.emptyList(error.message);
        return;
      }
      if (turn !== this.turns.find) return;
      this.places = places;
      this.limit = 60;
      this.list();
    }

    order() {
      const { documents } = this.index, [kind, ...rest] = this.sort.value.split(" ");
      if (kind === "set") return { places: this.places, value: (line) => line[2] };
      const sign = Number(rest.at(-1)), value = (line) => (kind === "2" ? line[2] : line[Number(kind)][Number(rest[0])]);
      const known = this.places.filter((place) => value(documents[place]) !== null);
      known.sort((one, other) => sign * (value(documents[one]) - value(documents[other])));
      return { places: [...known, ...this.places.filter((place) => value(documents[place]) === null)], value };
    }

    list() {
      if (!this.index) return;
      const { places, value } = this.order(), { documents } = this.index;
      const lines = places.slice(0, this.limit).map((place) => {
        const item = element("li"), button = element("button"), head = element("b"), number = value(documents[place]);
        head.append(element("span", shorten(documents[place][0], 40)), element("span", number === null ? NONE : formatSigned(number, 3)));
        button.type = "button";
        button.append(head, element("small", documents[place][1]));
        if (place === this.chosen) button.setAttribute("aria-current", "true");
        button.addEventListener("click", () => this.open(place, button));
        item.append(button);
        return item;
      });
      byId("doc-list").replaceChildren(...lines);
      byId("doc-count").textContent = `${formatPlain(this.places.length, 0)} of ${formatPlain(documents.length, 0)} documents; numbers are nats per token`;
      byId("doc-more").hidden = places.length <= this.limit;
    }

    async open(place, button) {
      const turn = ++this.turns.open;
      this.chosen = place;
      for (const other of byId("doc-list").querySelectorAll("[aria-current]")) other.removeAttribute("aria-current");
      button?.setAttribute("aria-current", "true");
      let texts;
      try {
        texts = await this.source.document(this.run, place);
      } catch (error) {
        if (turn === this.turns.open) this.emptyReader(`${shorten(this.index.documents[place][0], 40)} cannot be shown. ${error.message}`);
        return;
      }
      if (turn !== this.turns.open) return;
      Object.assign(this, { texts, shown: place });
      byId("reader-empty").hidden = true;
      byId("reader-body").hidden = false;
      byId("reader-title").textContent = this.index.documents[place][0];
      this.showTexts();
      if (innerWidth < 832) byId("reader").focus();
    }

    showTexts() {
      if (!this.texts) return;
      const line = this.index.documents[this.shown], at = this.index.variants.indexOf(this.beside.value);
      const gains = this.texts.flatMap((entry) => entry.pieces.map(gainOf)).filter((gain) => gain !== null).map(Math.abs).sort((one, other) => one - other);
      const wanted = gains.length ? gains[Math.min(Math.floor(0.97 * gains.length), gains.length - 1)] : 10;
      const scale = SCALES.find((candidate) => candidate >= wanted) ?? 10;
      const find = (name) => this.texts.find((entry) => entry.variant === name);
      const number = (name, value) => (value === null || value === undefined ? "" : `${name} ${formatSigned(value, 4)} nats/token`);
      byId("reader-note").textContent = [number("gain on the original", line[2]), number("shift", line[3][at]), number("net shift", line[4][at])].filter(Boolean).join("; ");
      byId("scale-note").textContent = `strongest shade from ${scale} nats`;
      this.left.show(find("original"), "original", scale);
      const variant = find(this.beside.value);
      this.right.show(variant, variant ? this.beside.selectedOptions[0].textContent : `${this.beside.value}: this document has no such text`, scale);
    }

    redrawRulers() { this.left.drawRuler(); this.right.drawRuler(); }
  }

  let reader = { redrawRulers() {} };
  if (byId("explore")) {
    const source = payload.served ? new ServedTexts() : new PackedTexts(payload.explorer, readJson("text-blocks"), readJson("token-blocks"));
    reader = new Explorer(source);
    night.addEventListener("change", () => reader.redrawRulers());
    reader.start().then(() => {
      if (source.allTexts) (window.requestIdleCallback ?? setTimeout)(() => source.allTexts());
      document.documentElement.dataset.ready = "true";
    });
  } else {
    document.documentElement.dataset.ready = "true";
  }
})();
