"use strict";
// What a network's line opens is made from the JSON beside it, when it is first opened.

const MODES = { eval: "evaluation", train: "training" };
const MEASURES = { n: "norm", w: "worst element", e: "exact" };
const FORWARD = ["layers"];
const BACKWARD = ["layer gradients", "parameter gradients"];
const SHOWN_ROWS = 200;

// ---- text and elements -------------------------------------------------------------------------

function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function fill(made, attributes, children = []) {
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const number = (value) => (value === null ? "not finite" : value === 0 ? "0" : value.toExponential(1));

function ratio({ error, budget }) {
  if (error === 0) return 0;
  return error === null || !budget ? Infinity : error / budget;
}

function share(one) {
  const times = ratio(one);
  if (one.out) {
    if (times === Infinity) return "✗ differs";
    return `✗ ${times < 1000 ? times.toPrecision(3) : times.toExponential(0).replace("+", "")}×`;
  }
  if (!one.budget) return "exact";
  return times < 0.01 ? "<1 %" : `${Math.min(100, Math.round(100 * times))} %`;
}

function level(one) {
  if (one.out) return "out";
  if (!one.budget) return "exact";
  return `level${[0.25, 0.5, 0.75].filter((from) => ratio(one) >= from).length}`;
}

function inWords(one) {
  const place = [one.check, one.layer, one.dtype, MODES[one.mode] ?? one.mode].filter(Boolean);
  const allowed = one.budget === 0 ? "must be exact" : `${number(one.budget)} allowed`;
  return `${place.join(", ")}: off by ${number(one.error)}, ${allowed}`;
}

const worst = (group) =>
  group.reduce((a, b) => (b.out - a.out || ratio(b) - ratio(a)) > 0 ? b : a);

const distinct = (values) => [...new Set(values)];

// ---- data --------------------------------------------------------------------------------------

// The objects that parity/compact.py has packed.
function unpack(data) {
  const at = (values, place) => (Array.isArray(values) ? values[place] : values);
  return data.groups.flatMap((group) => {
    const out = new Set(group.out);
    return data.layers[group.layers].map((layer, place) => ({
      title: group.title,
      check: group.check,
      dtype: group.dtype,
      mode: group.mode,
      layer,
      error: at(group.errors, place),
      budget: at(group.budgets, place),
      own: at(group.own, place),
      measure: MEASURES[group.measures[place] ?? group.measures],
      note: data.notes[at(group.notes, place)],
      out: out.has(place),
    }));
  });
}

// ---- charts ------------------------------------------------------------------------------------

// The next of 1, 2, 5, 10, ... and of their tenths, hundredths, ...
function roundStep(wanted) {
  const power = 10 ** Math.floor(Math.log10(wanted));
  return [1, 2, 5, 10].map((each) => each * power).find((each) => each >= wanted);
}

// Lines over places 0, 1, ...; a series is {name, colour, values, budgets, out, describe}, with null
// where there is no finite value. Values that are 0 stand at the bottom of a logarithmic axis.
function chart({ title, axis, places, series, logarithmic = true }) {
  const figure = element("figure", {}, element("figcaption", {}, title));
  const legend = element("p", { class: "legend" });
  series.forEach(({ name, budgets, colour }) => {
    const entry = (kind, text) =>
      element("span", {}, element("span", { class: `swatch ${kind} series${colour}` }), text);
    legend.append(entry("", name));
    if (budgets) legend.append(entry("budget", `budget in ${name}`));
  });
  const svg = document.getElementById("chart").content.firstElementChild.cloneNode(true);
  const readout = element("p", { class: "readout", "aria-live": "polite" },
    "Point at a place, or move there with the arrow keys, to read its numbers.");
  figure.append(legend, svg, readout);
  svg.setAttribute("aria-label", `${title}. Arrow keys move from place to place.`);

  let selected = null;
  let moveGuide = () => {};
  const choose = (place) => {
    selected = Math.max(0, Math.min(places.length - 1, place));
    readout.textContent =
      `${places[selected]}: ` + series.map((each) => each.describe(selected)).join("; ");
    moveGuide();
  };
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    choose(selected === null ? 0 : selected + step);
  });
  const point = (event) => {
    const { left, width } = svg.getBoundingClientRect();
    choose(Math.round(((event.clientX - left - 46) / (width - 56)) * (places.length - 1)));
  };
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point);

  const all = series.flatMap(({ values, budgets }) => [...values, ...(budgets ?? [])]);
  const finite = all.filter((value) => value !== null && (!logarithmic || value > 0));
  const measure = logarithmic ? Math.log10 : (value) => value;
  let low = finite.reduce((a, b) => Math.min(a, measure(b)), logarithmic && finite.length ? Infinity : 0);
  let high = finite.reduce((a, b) => Math.max(a, measure(b)), low);
  if (logarithmic) [low, high] = [Math.floor(low) - (all.includes(0) ? 1 : 0), Math.ceil(high)];
  if (high <= low) high = low + 1;

  const make = (name, attributes, text = "") => {
    const child = document.createElementNS(svg.namespaceURI, name);
    return svg.appendChild(fill(child, attributes, text ? [text] : []));
  };

  function draw() {
    const [width, height] = [Math.max(280, svg.clientWidth || 600), 240];
    const [left, right, top, bottom] = [46, width - 10, 10, height - 24];
    const x = (place) => left + ((right - left) * place) / Math.max(1, places.length - 1);
    const y = (value) => {
      if (value === null) return top;
      const at = logarithmic && value <= 0 ? low : measure(value);
      return bottom - ((bottom - top) * (at - low)) / (high - low);
    };
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    const step = logarithmic ? Math.max(1, Math.ceil((high - low) / 8)) : roundStep((high - low) / 6);
    const ticks = Array.from({ length: Math.floor((high - low) / step) + 1 }, (_, i) => low + i * step);
    for (const tick of ticks) {
      const at = bottom - ((bottom - top) * (tick - low)) / (high - low);
      make("line", { class: "grid", x1: left, x2: right, y1: at, y2: at });
      const zero = logarithmic && tick === low && all.includes(0);
      const text = zero ? "0" : logarithmic ? `1e${tick}` : String(Number(tick.toPrecision(3)));
      make("text", { x: left - 6, y: at + 4, "text-anchor": "end" }, text);
    }
    make("text", { x: left, y: height - 6 }, axis[0]);
    make("text", { x: right, y: height - 6, "text-anchor": "end" }, axis[1]);
    const line = (values) =>
      values.map((value, place) => `${place ? "L" : "M"}${x(place).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    series.forEach(({ values, budgets, out, colour }) => {
      if (budgets) make("path", { class: `budget series${colour}`, d: line(budgets) });
      make("path", { class: `series${colour}`, d: line(values) });
      if (values.length <= 80) {
        values.forEach((value, place) =>
          make("circle", { class: `series${colour}`, cx: x(place), cy: y(value), r: 1.8 }));
      }
      values.forEach((value, place) => {
        if (!out?.[place]) return;
        const [cx, cy] = [x(place), y(value)];
        const cross = `M${cx - 4} ${cy - 4}l8 8m0 -8l-8 8`;
        make("path", { class: "beyond", d: cross });
      });
    });
    const guide = make("line", { class: "guide", y1: top, y2: bottom });
    moveGuide = () => {
      guide.style.display = selected === null ? "none" : "";
      fill(guide, { x1: x(selected), x2: x(selected) });
    };
    moveGuide();
  }
  figure.draw = draw;
  return figure;
}

function errorChart(title, axis, comparisons) {
  const places = distinct(comparisons.map((one) => one.layer));
  const series = distinct(comparisons.map((one) => one.dtype)).map((dtype, colour) => {
    const found = new Map(
      comparisons.filter((one) => one.dtype === dtype).map((one) => [one.layer, one]));
    const line = places.map((layer) => found.get(layer));
    return {
      name: dtype,
      colour,
      values: line.map((one) => one?.error ?? null),
      budgets: line.map((one) => one?.budget ?? null),
      out: line.map((one) => one?.out),
      describe: (place) =>
        line[place] ? `${dtype} off by ${number(line[place].error)}, ${share(line[place])} of ${number(line[place].budget)}` : `${dtype} not compared`,
    };
  });
  return chart({ title, axis, places, series });
}

function driftCharts(drift) {
  const sides = Object.entries(drift);
  const draw = (key, title, logarithmic) => chart({
    title,
    logarithmic,
    places: sides[0][1].step.map((step) => `step ${step}`),
    axis: ["first step", "last step"],
    series: sides
      .map(([name, run], place) => ({
        name,
        colour: (place + 3) % 4, // grey for the oracle, which comes first
        values: run[key],
        describe: (step) => `${name} ${number(run[key][step] ?? null)}`,
      }))
      .filter(({ values }) => values.some(Boolean)),
  });
  return [
    draw("distance", "Training: distance of all parameters from PyTorch float64, relative", true),
    draw("loss", "Training: loss before each update", false),
  ];
}

// ---- tables ------------------------------------------------------------------------------------

function scrolling(caption, table) {
  table.prepend(element("caption", {}, element("span", {}, caption)));
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption }, table);
}

function row(cells, head = false) {
  return element("tr", {}, ...cells.map((cell) =>
    cell instanceof Node ? cell : element(head ? "th" : "td", head ? { scope: "col" } : {}, cell)));
}

const rowHead = (text) => element("th", { scope: "row", class: "name" }, text);
const columnHead = (text, kind) => element("th", { scope: "col", class: kind }, text);

// Check by dtype and mode, in every cell the comparison nearest to its budget.
function overview(comparisons) {
  const keyOf = (one) => `${one.dtype} ${MODES[one.mode] ?? one.mode}`.trim();
  const columns = distinct(comparisons.map(keyOf));
  const rows = distinct(comparisons.map((one) => one.check)).map((check) => {
    const group = comparisons.filter((one) => one.check === check);
    return row([rowHead(check), ...columns.map((column) => {
      const cell = group.filter((one) => keyOf(one) === column);
      if (!cell.length) return element("td", { class: "share none" }, "·");
      const nearest = worst(cell);
      const text = nearest.error ? `${share(nearest)} (${number(nearest.error)})` : share(nearest);
      return element("td", { class: `share ${level(nearest)}`, title: inWords(nearest) }, text);
    })]);
  });
  return scrolling(
    "Every check: share of the budget, and error, of the comparison nearest to its budget",
    element("table", { class: "matrix" },
      element("thead", {}, row([columnHead("check", "name"), ...columns.map((each) => each || "any dtype")], true)),
      element("tbody", {}, ...rows)));
}

// A line a layer, its dtypes side by side.
function layerTable(comparisons) {
  const dtypes = distinct(comparisons.map((one) => one.dtype));
  const titled = distinct(comparisons.map((one) => one.title)).length > 1;
  const lines = new Map();
  for (const one of comparisons) {
    const key = JSON.stringify([one.title, one.layer]);
    if (!lines.has(key)) lines.set(key, []);
    lines.get(key).push(one);
  }
  const noted = comparisons.some((one) => one.note);
  const heads = [columnHead(titled ? "what" : "layer", "name")];
  for (const dtype of dtypes) {
    heads.push(`${dtype} error`, "allowed", "share");
    if (dtype && dtype !== "float64") heads.push("PyTorch's own");
  }
  if (noted) heads.push(columnHead("note", "text"));
  const makeRow = (group) => {
    const { title, layer } = group[0];
    const cells = [rowHead([titled ? title : "", layer].filter(Boolean).join(", ") || "–")];
    for (const dtype of dtypes) {
      const one = group.find((each) => each.dtype === dtype);
      const own = dtype && dtype !== "float64";
      if (!one) {
        cells.push("", "", element("td", { class: "share none" }, "·"), ...(own ? [""] : []));
        continue;
      }
      cells.push(element("td", { title: one.measure }, number(one.error)),
        one.budget === 0 ? "exact" : number(one.budget),
        element("td", { class: `share ${level(one)}` }, share(one)));
      if (own) cells.push(one.own === null ? "" : number(one.own));
    }
    const notes = distinct(group.map((one) => one.note)).filter(Boolean).join("; ");
    if (noted) cells.push(element("td", { class: "text" }, notes));
    return row(cells);
  };
  // What is out of budget is never among the rows that are left out at first.
  const groups = [...lines.values()];
  const isOut = (group) => group.some((one) => one.out);
  const first = groups.filter((group, place) => place < SHOWN_ROWS || isOut(group));
  const body = element("tbody", {}, ...first.map(makeRow));
  const made = element("div", {}, scrolling(
    `${groups.length.toLocaleString("en")} comparisons, in the order in which they were made`,
    element("table", { class: "numbers" }, element("thead", {}, row(heads, true)), body)));
  if (first.length < groups.length) {
    const more = element("button", { type: "button" }, `Show all ${groups.length.toLocaleString("en")}`);
    more.addEventListener("click", () => {
      body.replaceChildren(...groups.map(makeRow));
      more.remove();
    });
    made.append(more);
  }
  return made;
}

// ---- what a line opens -------------------------------------------------------------------------

function chooser(label, values, texts) {
  const select = element("select", {}, ...values.map((value, place) =>
    element("option", { value }, texts[place])));
  return { select, label: element("label", {}, `${label} `, select) };
}

function show(place) {
  const data = JSON.parse(document.getElementById(place.dataset.source).textContent);
  const comparisons = unpack(data);
  const charts = element("div", { class: "charts" });
  const table = element("div");
  if (comparisons.length) {
    const modes = distinct(comparisons.map((one) => one.mode)).filter(Boolean);
    const checks = distinct(comparisons.map((one) => one.check));
    const firstOut = comparisons.find((one) => one.out);
    const mode = chooser("Mode", modes, modes.map((each) => MODES[each] ?? each));
    const check = chooser("Table of", checks, checks.map((each) => {
      const group = comparisons.filter((one) => one.check === each);
      const out = group.filter((one) => one.out).length;
      return `${each} (${group.length.toLocaleString("en")}${out ? `, ${out} out` : ""})`;
    }));
    if (modes.length) mode.select.value = firstOut?.mode || modes[modes.length - 1];
    check.select.value = firstOut?.check ?? (checks.includes("layers") ? "layers" : checks[0]);
    const update = () => {
      const inMode = comparisons.filter((one) => !one.mode || one.mode === mode.select.value);
      charts.replaceChildren();
      const panel = (names, title, axis) => {
        const name = names.find((each) => inMode.some((one) => one.check === each));
        const group = inMode.filter((one) => one.check === name);
        if (name && distinct(group.map((one) => one.layer)).length > 1) {
          charts.append(errorChart(`${title} (${MODES[mode.select.value]})`, axis, group));
        }
      };
      panel(FORWARD, "Forward: error of every layer's output", ["first layer", "last layer"]);
      panel(BACKWARD, "Backward: error of every layer's gradient", ["last layer", "first layer"]);
      if (Object.keys(data.drift).length) charts.append(...driftCharts(data.drift));
      table.replaceChildren(layerTable(inMode.filter((one) => one.check === check.select.value)));
      charts.childNodes.forEach((each) => each.draw());
    };
    mode.select.addEventListener("change", update);
    check.select.addEventListener("change", update);
    const controls = (...parts) => element("div", { class: "controls" }, ...parts);
    const several = checks.length > 1;
    place.append(
      ...(modes.length > 1 ? [controls(mode.label)] : []), charts,
      ...(several ? [element("h4", {}, "Every check"), overview(comparisons),
        element("h4", {}, "Layer by layer"), controls(check.label)] : []),
      table);
    update();
  } else {
    charts.append(...driftCharts(data.drift));
    place.append(charts);
    charts.childNodes.forEach((each) => each.draw());
  }
}

for (const details of document.querySelectorAll("details.subject")) {
  details.addEventListener("toggle", () => {
    const place = details.querySelector(".detail");
    if (details.open && !place.hasChildNodes()) show(place);
  });
}

let waiting = 0;
addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(
    () => document.querySelectorAll("details[open] figure").forEach((each) => each.draw()), 150);
});

function openTarget() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
}
addEventListener("hashchange", openTarget);
openTarget();

// ---- filter and order --------------------------------------------------------------------------

const controls = document.querySelector("form.controls");
if (controls) {
  controls.hidden = false;
  controls.addEventListener("submit", (event) => event.preventDefault());
  const [name, order, onlyOut, shown] = ["name-filter", "order", "only-out", "shown"].map(
    (id) => document.getElementById(id));
  const lists = [...document.querySelectorAll("#matrix tbody, #networks")].map((parent) => ({
    parent,
    entries: [...parent.querySelectorAll(":scope > [data-name]")],
  }));
  const comparers = {
    index: () => 0,
    name: (a, b) => a.dataset.name.localeCompare(b.dataset.name, "en", { numeric: true }),
    ratio: (a, b) => b.dataset.ratio - a.dataset.ratio,
  };
  const apply = () => {
    const wanted = name.value.trim().toLowerCase();
    for (const { parent, entries } of lists) {
      for (const entry of entries) {
        entry.hidden = !entry.dataset.name.toLowerCase().includes(wanted) ||
          (onlyOut.checked && entry.dataset.out === "0");
      }
      parent.append(...[...entries].sort(comparers[order.value]));
    }
    const { entries } = lists[0];
    const visible = entries.filter((entry) => !entry.hidden).length;
    shown.textContent = `${visible} of ${entries.length} networks`;
  };
  for (const each of [name, order, onlyOut]) each.addEventListener("input", apply);
  apply();
}
