// Keys and the search field.
const KEYS = {
  c: () => nextColor(1), C: () => nextColor(-1), n: () => walkNeighbors(1), p: () => walkNeighbors(-1), f: () => byId("find-what").focus(),
  m: () => setTool("move"), l: () => setTool("lasso"), b: () => setTool("box"), i: () => setPictures(!state.pictures),
  s: () => setBeside(!state.beside), "+": () => activeView().zoom(.7), "=": () => activeView().zoom(.7), "-": () => activeView().zoom(1 / .7),
  0: () => activeView().showAll(), Escape: clear, Enter: () => openPointed(),
};

function onKey(event) {
  views.forEach(view => view.stage.classList.remove("by-pointer"));
  const {key, target} = event, exploring = !byId("explore").hidden;
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  if (target.matches("input, select, textarea")) {
    if (key === "Escape") { target.blur(); activeView()?.stage.focus(); }
    return;
  }
  if (key === "?") return handle(event, () => byId("help").showModal());
  if (!exploring || !views.length) return;
  if (key in DIRECTIONS) return target.matches("[role=tab], .wide") || handle(event, () => walk(key));
  if (key === "Enter" && !target.matches("body, .stage")) return;
  if (/^[1-9]$/.test(key)) return handle(event, () => setBackbone(views.indexOf(activeView()), key - 1));
  if (key in KEYS) handle(event, KEYS[key]);
}

function handle(event, run) {
  event.preventDefault();
  run();
}

function walk(key) { // from an open image, opens the next one; otherwise moves the cursor, and Enter opens
  const view = activeView(), from = state.cursor >= 0 ? state.cursor : state.selected;
  if (from < 0) return startWalk(view);
  const row = rowTowards(view, from, key);
  if (row < 0) return say("No point further in that direction.");
  state.selected >= 0 && state.cursor < 0 ? select(row) : moveCursor(row);
}

function startWalk(view) {
  const row = nearestRow(view, view.width / 2, view.height / 2, Infinity);
  row < 0 ? say("No point is shown.") : moveCursor(row);
}

function walkNeighbors(step) {
  if (state.selected < 0) return say("Open an image first: click on a point, or press Enter on one.");
  const neighbors = activeView().map.neighbors(state.selected), position = neighbors.indexOf(state.cursor);
  if (!neighbors.length) return say("This embedding has no neighbours.");
  const rank = position < 0 ? step > 0 ? 0 : neighbors.length - 1 : (position + step + neighbors.length) % neighbors.length;
  moveCursor(neighbors[rank]);
  byId("image").querySelector(".near .marked")?.scrollIntoView({block: "nearest"});
  say(`Neighbour ${rank + 1} of ${neighbors.length}: row ${neighbors[rank]}. Enter walks there.`);
}

function openPointed() {
  const row = state.cursor >= 0 ? state.cursor : state.hovered;
  row >= 0 ? select(row) : state.selected < 0 && startWalk(activeView());
}

function fillFind() {
  columns.forEach((column, index) => byId("find-where").append(make("option", {value: index, textContent: column.name})));
  byId("find").addEventListener("submit", event => {
    event.preventDefault();
    find(byId("find-what").value.trim(), byId("find-where").value);
  });
}

function find(text, where) {
  if (!text) return say("Type a row number or a text to find.");
  if (where === "" && /^\d+$/.test(text)) {
    return +text < meta.images ? select(+text) : say(`There is no row ${text}: rows go from 0 to ${meta.images - 1}.`);
  }
  const rows = rowsWithText(where === "" ? columns : [columns[where]], text.toLowerCase());
  if (!rows.length) return say(`No row has “${text}” in ${where === "" ? "any column" : columns[where].name}.`);
  if (rows.length === 1) return select(rows[0]);
  choose(rows);
}

function rowsWithText(searched, text) { // rows with exactly this text in a column, or else with a text that contains it
  const rowsBy = matches => {
    const rows = [];
    for (let row = 0; row < meta.images; row++) if (searched.some(column => matches(column.text(row).toLowerCase()))) rows.push(row);
    return rows;
  };
  const exact = rowsBy(value => value === text);
  return exact.length ? exact : rowsBy(value => value.includes(text));
}
