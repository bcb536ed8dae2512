// The side panel: one image with its neighbours, or a selection of many.
function drawPanel() {
  const {selected, chosen} = state, any = selected >= 0 || chosen !== null;
  byId("explore").classList.toggle("idle", !any);
  byId("panel-tabs").hidden = !any;
  byId("nothing").hidden = any;
  for (const [name, available] of [["image", selected >= 0], ["chosen", chosen !== null]]) {
    const tab = byId(`tab-${name}`), shown = available && state.panel === name;
    tab.hidden = !available;
    tab.ariaSelected = String(shown);
    tab.tabIndex = shown ? 0 : -1;
    byId(name).hidden = !shown;
  }
  byId("tab-chosen").textContent = chosen ? `Selection (${plain.format(chosen.length)})` : "Selection";
  if (any) drawPart();
}

function drawPart() {
  const part = byId(state.panel), within = part.contains(document.activeElement);
  part.replaceChildren(...state.panel === "image" ? imageParts(state.selected) : chosenParts(state.chosen));
  byId("panel").scrollTop = 0;
  if (within) part.querySelector("h2").focus();
}

const heading = text => make("h2", {textContent: text, tabIndex: -1});
const value = (column, row) => column.text(row) || "unknown";

function imageParts(row) {
  const column = coloring(), lead = make("div", {}, heading(`Row ${row}`)), others = columns.filter(each => each !== column);
  const brief = others.filter(each => each.colors && each.text(row).length <= 20).slice(0, 4), rest = others.filter(each => !brief.includes(each));
  if (column.name) lead.append(valueLine(column, row));
  lead.append(factList(brief, row));
  const parts = [make("div", {className: "lead"}, picture(row), lead)];
  for (const view of views) parts.push(...nearParts(view, row));
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

function nearParts({map}, row) {
  const near = map.neighbors(row), similar = shownCosines(map.similarities(row)), column = coloring();
  const differ = near.filter(other => column.differ(row, other)).length, much = column.kind === "number" ? " by over a quarter of its range" : "";
  const about = !near.length ? "None is given." : column.name ? `${differ} of ${near.length} differ in ${column.name}${much}` : "";
  const list = make("ol", {className: "near", data: {map: map.name}});
  near.forEach((other, rank) => list.append(make("li", {}, nearButton(other, similar[rank], !column.differ(row, other)))));
  return [make("h3", {}, `Nearest under ${map.name}`, make("span", {className: "quiet", textContent: about})), list];
}

function nearButton(row, similarity, same) {
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
  const own = new Set(views[0].map.neighbors(row)), others = maps.filter(map => map !== views[0].map);
  const shared = others.slice(0, 8).map(map => `${map.neighbors(row).filter(other => own.has(other)).length} under ${map.name}`);
  return make("p", {className: "quiet shared", textContent: `Of these, among the nearest too: ${shared.join(", ")}.`});
}

function chosenParts(rows) {
  const parts = [heading(`${plain.format(rows.length)} ${rows.length === 1 ? "image" : "images"} selected`)];
  if (!rows.length) return [...parts, make("p", {className: "quiet", textContent: "Nothing lies inside. Draw around some points, or press Esc."})];
  const shown = spread(rows, 60), share = rows.length / meta.images * 100;
  parts.push(make("p", {className: "quiet under", textContent: `${share < 1 ? share.toPrecision(1) : share.toFixed(0)} % of ${plain.format(meta.images)}`}), actions(rows));
  if (coloring().name) parts.push(make("h3", {textContent: `By ${coloring().name}`}), bars(rows));
  parts.push(make("h3", {}, "Images", make("span", {className: "quiet", textContent: shown.length < rows.length ? ` · ${shown.length} of them` : ""})), imageGrid(shown));
  const first = rows.slice(0, 200), less = first.length < rows.length ? ` · first ${first.length} of ${plain.format(rows.length)}` : "";
  parts.push(make("h3", {}, "Rows", make("span", {className: "quiet", textContent: less})), rowTable(first));
  return parts;
}

const spread = (rows, most) => rows.length <= most ? rows
  : Array.from({length: most}, (_, index) => rows[Math.floor((index + .5) * rows.length / most)]);

function actions(rows) {
  const button = (text, run) => {
    const made = make("button", {type: "button", textContent: text});
    made.addEventListener("click", run);
    return made;
  };
  return make("p", {className: "actions"}, button("Copy row numbers", () => copy(rows.join("\n"), rows.length)),
    button("Download CSV", () => download(rows)));
}

async function copy(text, count) {
  let done = true;
  try { await navigator.clipboard.writeText(text); } catch { // where a page from disk may not
    const area = make("textarea", {value: text});
    document.body.append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
  }
  say(done ? `${plain.format(count)} row numbers copied.` : "This browser does not let the page copy; download the CSV instead.");
}

function download(rows) {
  const quoted = text => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
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
  const body = make("tbody"), found = column.bins.filter(bin => counts.has(bin.id));
  const most = Math.max(...found.map(bin => Math.max(counts.get(bin.id) / rows.length, bin.count / meta.images)));
  if (column.kind === "word") found.sort((a, b) => counts.get(b.id) - counts.get(a.id));
  for (const bin of found) {
    const share = counts.get(bin.id) / rows.length, all = bin.count / meta.images, fill = make("i"), tick = make("b");
    Object.assign(fill.style, {width: `${share / most * 100}%`, background: binColor(column, bin.id)});
    tick.style.left = `calc(${all / most * 100}% - 1px)`;
    const cells = [plain.format(counts.get(bin.id)), percent(share), percent(all)].map(text => make("td", {className: "num", textContent: text}));
    body.append(make("tr", {data: {count: counts.get(bin.id)}}, make("th", {scope: "row", textContent: bin.name, title: bin.name}), make("td", {}, make("div", {className: "track"}, fill, tick)), ...cells));
  }
  const heads = ["", "", "number", "share", "of all"].map((text, index) => make("th", {scope: "col", textContent: text, className: index > 1 ? "num" : ""}));
  return make("table", {className: "bars"}, make("thead", {}, make("tr", {}, ...heads)), body);
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
