// Start of the page: load the data, connect buttons and keys, draw.
function connect() {
  document.addEventListener("keydown", onKey);
  for (const button of byId("tools").children) button.addEventListener("click", () => setTool(button.dataset.tool));
  const clicks = {
    nearer: () => activeView().zoom(.7), farther: () => activeView().zoom(1 / .7), whole: () => views.forEach(view => view.showAll()),
    pictures: () => setPictures(!state.pictures), beside: () => setBeside(!state.beside), close: clear, ask: () => byId("help").showModal(),
  };
  for (const [id, run] of Object.entries(clicks)) byId(id)?.addEventListener("click", run);
  dark.addEventListener("change", () => { recolor(); markMaps(); });
  connectTabs([["image", () => { state.panel = "image"; drawPanel(); }], ["chosen", () => { state.panel = "chosen"; drawPanel(); }]]);
  if (byId("findings")) connectTabs([["explore", () => showPane("explore")], ["findings", () => showPane("findings")]]);
}

function connectTabs(tabs) {
  tabs.forEach(([name, show], index) => {
    const tab = byId(`tab-${name}`), next = byId(`tab-${tabs[1 - index][0]}`);
    tab.addEventListener("click", show);
    tab.addEventListener("keydown", event => {
      if (!["ArrowLeft", "ArrowRight"].includes(event.key) || next.hidden) return;
      next.click();
      next.focus();
    });
  });
}

function showPane(name) {
  for (const pane of ["explore", "findings"]) {
    byId(pane).hidden = pane !== name;
    byId(`tab-${pane}`).ariaSelected = String(pane === name);
    byId(`tab-${pane}`).tabIndex = pane === name ? 0 : -1;
  }
  byId("find").classList.toggle("away", name !== "explore"); // hidden, but it still takes up its space
  hideCard();
}

function welcome() {
  const count = `${plain.format(meta.images)} ${meta.images === 1 ? "image" : "images"}, ${maps.length === 1 ? "one feature space" : `${maps.length} feature spaces`}`;
  byId("nothing").replaceChildren(
    make("p", {className: "count", textContent: count}),
    make("p", {textContent: "Every point is an image; images that a backbone finds alike lie close together."}),
    make("p", {}, make("b", {textContent: "Click"}), " a point to see its image and its nearest neighbours, and walk on from there."),
    make("p", {}, make("b", {textContent: "Lasso"}), " or ", make("b", {textContent: "Box"}), " select many: what are they, and what do they have in common?"),
    make("p", {className: "quiet"}, "Everything works with keys too; ", make("kbd", {textContent: "?"}), " lists them."));
}

function hook() { // for tests: the state of the page, and positions of points
  const names = () => coloring().groups.filter(group => state.hidden.has(group.id)).map(group => group.name);
  const read = () => ({
    backbones: views.map(view => view.map.name), color: coloring().name, hidden: names(), selected: state.selected, cursor: state.cursor,
    hovered: state.hovered, neighbors: state.selected < 0 ? [] : views.map(view => view.map.neighbors(state.selected)),
    chosen: state.chosen && [...state.chosen], beside: state.beside, tool: state.tool, pictures: state.pictures,
    ranges: views.map(view => view.range), painted: views.map(view => view.painted?.rows ?? []), travelling: views.some(view => view.travelling), status: byId("status").textContent,
  });
  window.explorer = Object.freeze({state: read, at: (row, view = 0) => views[view].page(row)});
}

async function start() {
  if (typeof DecompressionStream === "undefined") throw new Error("This page needs a browser from 2023 or later.");
  const library = make("script", {textContent: await inflateText("library")});
  document.head.append(library);
  for (const map of meta.maps) maps.push(await openMap(map));
  for (const column of meta.columns) columns.push(await openColumn(column));
  state.color = columns.findIndex(column => column.colors);
  fillColors();
  fillFind();
  welcome();
  connect();
  views.push(new View(0));
  drawLegend();
  drawPanel();
  hook();
  byId("loading").hidden = true;
}

await start().catch(error => {
  byId("loading").textContent = `The page could not be opened: ${error.message}`;
  throw error;
});
