// The state of the page, and all functions that change it. Each of them redraws what depends on its change.
const state = {
  shown: [0, Math.min(1, meta.maps.length - 1)], active: 0, beside: false, color: -1, hidden: new Set(), selected: -1, cursor: -1,
  hovered: -1, chosen: null, chosenMask: null, panel: "image", pictures: false, tool: "move",
};
const maps = [], columns = [], views = [];
const coloring = () => columns[state.color] ?? noColumn;
const activeView = () => views[state.active] ?? views[0];
const drawMaps = () => views.forEach(view => view.travelling || view.draw());
const markMaps = () => views.forEach(view => view.mark());

function say(text) { byId("status").textContent = byId("status").title = text; }

function select(row) {
  Object.assign(state, {selected: row, cursor: -1, panel: "image"});
  const {map} = activeView(), [nearest] = map.neighbors(row), named = coloring().name;
  const near = nearest === undefined ? "" : ` Nearest: row ${nearest} (${shownCosines(map.similarities(row))[0]}).`;
  say(`Row ${row}${named ? `, ${named} ${value(coloring(), row)}` : ""}.${near}`);
  hideCard();
  drawPanel();
  views.forEach(view => view.reveal(row));
  markMaps();
}

function point(row, view = null) { // marks a point, which Enter then opens; in a view, also shows its card
  state.hovered = row;
  hideCard();
  markMaps();
  if (row >= 0 && view) showCard(row, ...view.page(row));
}

function hover(view, row, event) {
  view.stage.classList.toggle("over", row >= 0);
  if (row === state.hovered && row < 0) return;
  state.hovered = row;
  views.forEach(each => { each.pointed = row >= 0; each.mark(); });
  row >= 0 ? showCard(row, event.clientX, event.clientY) : hideCard();
}

function moveCursor(row) {
  state.cursor = row;
  markNeighbor(row);
  const view = activeView();
  view.reveal(row);
  markMaps();
  showCard(row, ...view.page(row));
  say(`Row ${row}${coloring().name ? `, ${coloring().name} ${value(coloring(), row)}` : ""}. Enter opens it.`);
}

function markNeighbor(row) {
  for (const button of byId("image").querySelectorAll(".near button")) button.classList.toggle("marked", +button.dataset.row === row);
}

function choose(rows) {
  const sorted = Uint32Array.from(rows).sort(), mask = new Uint8Array(meta.images);
  for (const row of sorted) mask[row] = 1;
  Object.assign(state, {chosen: [...sorted], chosenMask: sorted.length ? mask : null, panel: "chosen"});
  say(`${plain.format(sorted.length)} ${sorted.length === 1 ? "image" : "images"} selected.`);
  drawPanel();
  drawMaps();
}

function dismiss() { // closes the open image; the selection of many stays
  if (state.selected < 0 && state.cursor < 0) return;
  Object.assign(state, {selected: -1, cursor: -1, panel: "chosen"});
  drawPanel();
  markMaps();
}

function clear() {
  const redraw = state.chosenMask !== null;
  Object.assign(state, {selected: -1, cursor: -1, hovered: -1, chosen: null, chosenMask: null, panel: "image"});
  hideCard();
  drawPanel();
  redraw ? drawMaps() : markMaps();
  say("Nothing selected.");
}

function recolor() {
  drawLegend();
  drawPanel();
  drawMaps();
}

function setColor(index) {
  Object.assign(state, {color: index, hidden: new Set()});
  recolor();
  say(index < 0 ? "One colour." : `Coloured by ${columns[index].name}.`);
}

function nextColor(step) {
  const options = [...byId("color").options].map(option => +option.value);
  setColor(options[(options.indexOf(state.color) + step + options.length) % options.length]);
}

function setHidden(hidden) {
  const {groups} = coloring(), shown = groups.filter(group => !hidden.has(group.id)).map(group => group.name);
  state.hidden = hidden;
  drawLegend();
  drawMaps();
  say(hidden.size ? `Shown: ${shown.join(", ") || "nothing"}.` : "All classes shown.");
}

function setBackbone(slot, index) {
  if (!maps[index]) return;
  const same = state.shown[slot] === index;
  state.shown[slot] = index;
  say(`${state.beside ? slot ? "Right: " : "Left: " : ""}${maps[index].name}.`);
  if (same) return;
  hideCard();
  views[slot].switchTo(maps[index]);
  drawPanel();
}

function setBeside(beside) {
  if (maps.length < 2 || beside === state.beside) return;
  Object.assign(state, {beside, active: 0});
  if (beside && state.shown[1] === state.shown[0]) state.shown[1] = (state.shown[0] + 1) % maps.length;
  byId("beside").ariaPressed = String(beside);
  byId("maps").classList.toggle("beside", beside);
  beside ? views.push(new View(1)) : views.pop().remove();
  drawPanel();
  say(beside ? `${maps[state.shown[0]].name} beside ${maps[state.shown[1]].name}.` : `${maps[state.shown[0]].name} alone.`);
}

function setTool(tool) {
  state.tool = tool;
  for (const button of byId("tools").children) button.ariaPressed = String(button.dataset.tool === tool);
  views.forEach(view => {
    view.stage.classList.toggle("drawing", tool !== "move");
    if (view.built) Plotly.relayout(view.plot, {dragmode: tool === "move" ? "pan" : false});
  });
}

function setPictures(pictures) {
  state.pictures = pictures;
  byId("pictures").ariaPressed = String(pictures);
  views.forEach(view => view.repaint());
}

// The card beside the pointer.
function showCard(row, x, y) {
  const card = byId("card"), column = coloring(), text = make("div", {}, make("p", {className: "row", textContent: `Row ${row}`}));
  if (column.name) {
    const swatch = make("i", {className: "swatch"});
    Object.assign(swatch.style, {background: colorOf(row), borderColor: colorOf(row)});
    text.append(make("p", {className: "first"}, swatch, make("span", {textContent: value(column, row)})));
  }
  for (const each of columns.filter(each => each !== column && each.colors && each.text(row) && each.text(row).length <= 40).slice(0, 3))
    text.append(make("p", {}, make("span", {className: "quiet", textContent: `${each.name} `}), each.text(row)));
  if (+card.dataset.row !== row || card.hidden) card.replaceChildren(picture(row, ""), text);
  card.dataset.row = row;
  card.hidden = false;
  const {width, height} = card.getBoundingClientRect(), gap = 18;
  const left = x + gap + width > innerWidth ? x - gap - width : x + gap, top = y + gap + height > innerHeight ? y - gap - height : y + gap;
  card.style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`;
}

function hideCard() { byId("card").hidden = true; }
View.prototype.page = function (row) { // position of a point on the page, in CSS pixels
  const box = this.stage.getBoundingClientRect(), [x, y] = this.screen(row);
  return [box.left + x, box.top + y];
};
