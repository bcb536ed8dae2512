// The side panel: one image with its neighbours, or a selection of many images.
function drawPanel() {
  const {selected, chosen} = state, open = selected >= 0 || chosen !== null;
  byId("explore").classList.toggle("idle", !open);
  byId("panel-tabs").hidden = !open;
  byId("nothing").hidden = open;
  for (const [name, available] of [["image", selected >= 0], ["chosen", chosen !== null]]) {
    const tab = byId(`tab-${name}`), shown = available && state.panel === name;
    tab.hidden = !available;
    tab.ariaSelected = String(shown);
    tab.tabIndex = shown ? 0 : -1;
    byId(name).hidden = !shown;
  }
  byId("tab-chosen").textContent = chosen ? `Selection (${plain.format(chosen.length)})` : "Selection";
  if (open) fillPanel();
}

function fillPanel() {
  const container = byId(state.panel), hadFocus = container.contains(document.activeElement);
  container.replaceChildren(...state.panel === "image" ? imageParts(state.selected) : chosenParts(state.chosen));
  byId("panel").scrollTop = 0;
  if (hadFocus) container.querySelector("h2").focus();
}

const heading = text => make("h2", {textContent: text, tabIndex: -1});
const value = (column, row) => column.text(row) || "unknown";

function imageParts(row) {
  const column = coloring(), lead = make("div", {}, heading(`Row ${row}`)), others = columns.filter(each => each !== column);
  const brief = others.filter(each => each.colors && each.text(row).length <= 20).slice(0, 4), rest = others.filter(each => !brief.includes(each));
  if (column.name) lead.append(valueLine(column, row));
  lead.append(factList(brief, row));
  const parts = [make("div", {className: "lead"}, picture(row), lead)];
  for (const view of views) parts.push(...neighborParts(view, row));
  if (views.length === 1 && maps.length > 1) parts.push(sharedLine(row));
  if (rest.length) parts.push(make("h3", {textContent: "More columns"}), factList(rest, row));
  return parts;
}

function factList(shown, row) {
  const facts = make("dl", {className: "facts"});
  for (const column of shown) {
    const dd = make("dd", {textContent: value(column, row), title: value(column, row)});
    dd.classList.toggle("unknown", !column.text(row));
    facts.append(make("dt", {textContent: column.name, title: column.name}), dd);
  }
  return facts;
}

function valueLine(column, row) {
  const dot = make("i", {className: "swatch"}), text = make("b", {textContent: value(column, row)});
  Object.assign(dot.style, {background: colorOf(row), borderColor: colorOf(row), display: "inline-block", marginRight: ".45rem"});
  return make("p", {}, dot, make("span", {className: "quiet", textContent: `${column.name}: `}), text);
}

function neighborParts({map}, row) {
  const neighbors = map.neighbors(row), cosines = shownCosines(map.similarities(row)), column = coloring();
  const differ = neighbors.filter(other => column.differ(row, other)).length, threshold = column.kind === "number" ? " by over a quarter of its range" : "";
  const summary = !neighbors.length ? "This embedding has no neighbours." : column.name ? `${differ} of ${neighbors.length} differ in ${column.name}${threshold}` : "";
  const list = make("ol", {className: "near", data: {map: map.name}});
  neighbors.forEach((other, rank) => list.append(make("li", {}, neighborButton(other, cosines[rank], !column.differ(row, other)))));
  return [make("h3", {}, `Nearest under ${map.name}`, make("span", {className: "quiet", textContent: summary})), list];
}

function neighborButton(row, similarity, same) {
  const text = value(coloring(), row), shown = coloring().name ? same ? text : `≠ ${text}` : `row ${row}`;
  const button = make("button", {type: "button", data: {row}}, picture(row, ""),
    make("span", {className: "value"}, make("span", {textContent: similarity})), make("span", {className: "is", textContent: shown}));
  button.classList.toggle("differs", !same);
  button.title = button.ariaLabel = `Row ${row}, similarity ${similarity}${coloring().name ? `, ${coloring().name}: ${text}${same ? "" : " (differs)"}` : ""}`;
  button.addEventListener("click", () => select(row));
  for (const [event, target] of [["mouseenter", row], ["focus", row], ["mouseleave", -1], ["blur", -1]])
    button.addEventListener(event, () => point(target));
  return button;
}

function sharedLine(row) {
  const shownNeighbors = new Set(views[0].map.neighbors(row)), others = maps.filter(map => map !== views[0].map);
  const counts = others.slice(0, 8).map(map => `${map.neighbors(row).filter(other => shownNeighbors.has(other)).length} under ${map.name}`);
  return make("p", {className: "quiet shared", textContent: `Of these neighbours, also among the nearest: ${counts.join(", ")}.`});
}

function chosenParts(rows) {
  const parts = [heading(`${plain.format(rows.length)} ${rows.length === 1 ? "image" : "images"} selected`)];
  if (!rows.length) return [...parts, make("p", {className: "quiet", textContent: "Nothing lies inside. Draw around some points, or press Esc."})];
  const shown = evenSample(rows, 60), share = rows.length / meta.images * 100;
  parts.push(make("p", {className: "quiet under", textContent: `${share < 1 ? share.toPrecision(1) : share.toFixed(0)} % of ${plain.format(meta.images)}`}), actions(rows));
  if (coloring().name) parts.push(make("h3", {textContent: `By ${coloring().name}`}), bars(rows));
  parts.push(make("h3", {}, "Images", make("span", {className: "quiet", textContent: shown.length < rows.length ? ` · ${shown.length} of them` : ""})), imageGrid(shown));
  const first = rows.slice(0, 200), limit = first.length < rows.length ? ` · first ${first.length} of ${plain.format(rows.length)}` : "";
  parts.push(make("h3", {}, "Rows", make("span", {className: "quiet", textContent: limit})), rowTable(first));
  return parts;
}

const evenSample = (rows, most) => rows.length <= most ? rows
  : Array.from({length: most}, (_, index) => rows[Math.floor((index + .5) * rows.length / most)]);

function actions(rows) {
  const button = (text, run) => {
    const element = make("button", {type: "button", textContent: text});
    element.addEventListener("click", run);
    return element;
  };
  return make("p", {className: "actions"}, button("Copy row numbers", () => copy(rows.join("\n"), rows.length)),
    button("Download CSV", () => download(rows)));
}

async function copy(text, count) {
  let copied = true;
  try { await navigator.clipboard.writeText(text); } catch { // browsers may refuse this to a page from disk
    const textarea = make("textarea", {value: text});
    document.body.append(textarea);
    textarea.select();
    copied = document.execCommand("copy");
    textarea.remove();
  }
  say(copied ? `${plain.format(count)} row numbers copied.` : "This browser does not let the page copy; download the CSV instead.");
}

function download(rows) {
  const formula = text => /^\s*[=+\-@|%]/.test(text) && !/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text);
  const inert = text => formula(text) ? `'${text}` : text; // a spreadsheet would run it
  const escaped = text => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const quoted = text => escaped(inert(text));
  const line = (first, texts) => [first, ...texts.map(quoted)].join();
  const lines = [line("row", columns.map(column => column.name)), ...rows.map(row => line(row, columns.map(column => column.text(row))))];
  const link = make("a", {href: URL.createObjectURL(new Blob([lines.join("\n") + "\n"], {type: "text/csv"})), download: "selection.csv"});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  say(`${plain.format(rows.length)} rows written to selection.csv.`);
}

function bars(rows) {
  const column = coloring(), counts = new Map();
  for (const row of rows) counts.set(column.bin(row), (counts.get(column.bin(row)) ?? 0) + 1);
  const percent = share => share > 0 && share < .01 ? "<1 %" : `${Math.round(share * 100)} %`;
  const body = make("tbody"), bins = column.bins.filter(bin => counts.has(bin.id));
  const most = Math.max(...bins.map(bin => Math.max(counts.get(bin.id) / rows.length, bin.count / meta.images)));
  if (column.kind === "word") bins.sort((a, b) => counts.get(b.id) - counts.get(a.id));
  for (const bin of bins) {
    const share = counts.get(bin.id) / rows.length, all = bin.count / meta.images, bar = make("i"), overall = make("b");
    Object.assign(bar.style, {width: `${share / most * 100}%`, background: binColor(column, bin.id)});
    overall.style.left = `calc(${all / most * 100}% - 1px)`;
    const cells = [plain.format(counts.get(bin.id)), percent(share), percent(all)].map(text => make("td", {className: "num", textContent: text}));
    body.append(make("tr", {data: {count: counts.get(bin.id)}}, make("th", {scope: "row", textContent: bin.name, title: bin.name}), make("td", {}, make("div", {className: "track"}, bar, overall)), ...cells));
  }
  const headings = ["", "", "number", "share", "of all"].map((text, index) => make("th", {scope: "col", textContent: text, className: index > 1 ? "num" : ""}));
  return make("table", {className: "bars"}, make("thead", {}, make("tr", {}, ...headings)), body);
}

function imageGrid(rows) {
  return make("ul", {className: "grid"}, ...rows.map(row => {
    const button = make("button", {type: "button", data: {row}, title: `Row ${row}${coloring().name ? `, ${value(coloring(), row)}` : ""}`}, picture(row));
    button.style.borderBottomColor = colorOf(row);
    button.addEventListener("click", () => select(row));
    for (const [event, target] of [["mouseenter", row], ["focus", row], ["mouseleave", -1], ["blur", -1]])
      button.addEventListener(event, () => point(target));
    return make("li", {}, button);
  }));
}

function rowTable(rows) {
  const head = make("tr", {}, make("th", {scope: "col", textContent: "row"}), ...columns.map(column =>
    make("th", {scope: "col", textContent: column.name, title: column.name, className: column.kind === "number" ? "num" : ""})));
  const body = make("tbody", {}, ...rows.map(row => {
    const open = make("button", {type: "button", textContent: row});
    open.addEventListener("click", () => select(row));
    return make("tr", {}, make("td", {}, open), ...columns.map(column =>
      make("td", {textContent: column.text(row), title: column.text(row), className: column.kind === "number" ? "num" : ""})));
  }));
  return make("div", {className: "wide", tabIndex: 0, ariaLabel: "Rows of the selection"}, make("table", {className: "rows"}, make("thead", {}, head), body));
}
