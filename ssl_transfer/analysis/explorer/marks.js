// Colours of points, for Plotly and the canvas, and the marks: rings around the open image, its neighbours and the point under the
// pointer, lines to neighbours, and the outline of a lasso or box.
const svg = (tag, attributes) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};
const dark = matchMedia("(prefers-color-scheme: dark)");
const themed = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const ramp = () => dark.matches ? meta.scale.slice(45) : meta.scale.slice(0, 236); // without the end that has little contrast with the page
const rampColor = share => { const colors = ramp(); return colors[Math.round(share * (colors.length - 1))]; };

function groupColor(group, column = coloring()) {
  if (group === UNKNOWN) return themed("--unknown");
  if (group === OTHER) return themed("--other");
  return column.kind === "none" ? meta.palette[0] : meta.palette[group - 1];
}

function colorOf(row) {
  const column = coloring(), group = column.group(row);
  return column.kind === "number" && group !== UNKNOWN ? rampColor(column.share(row)) : groupColor(group);
}

const binColor = (column, bin) => column.kind === "number" && bin !== UNKNOWN ? rampColor((bin - .5) / 6) : groupColor(bin);

function pickable(row) { return !state.hidden.size || !state.hidden.has(coloring().group(row)); }

// Rows are drawn in a shuffled order, which is always the same. If they were drawn by class, or in the order of the store, the last
// ones would cover all others where points are dense.
const shuffled = Uint32Array.from({length: meta.images}, (_, row) => row);
for (let last = meta.images - 1, seed = 1; last > 0; last--) {
  seed = Math.imul(seed, 1664525) + 1013904223 >>> 0;
  const other = Math.floor(seed / 2 ** 32 * (last + 1)), held = shuffled[last];
  shuffled[last] = shuffled[other];
  shuffled[other] = held;
}

function layers() { // in the order of drawing: unselected before selected, and in each of these unknown before known values
  const column = coloring(), mask = state.chosenMask;
  const all = [0, 1].flatMap(highlighted => [false, true].map(known => ({known, highlighted, rows: []})));
  for (const row of shuffled) {
    const group = column.group(row);
    if (!state.hidden.has(group)) all[2 * (mask ? mask[row] : 1) + (group !== UNKNOWN)].rows.push(row);
  }
  return all.filter(layer => layer.rows.length);
}

const opacityOf = layer => layer.highlighted ? layer.known ? .85 : .7 : .12;

function traces(map, size) {
  return layers().map(layer => {
    const coordinates = axis => Float32Array.from(layer.rows, row => axis[row]);
    const marker = {size, opacity: opacityOf(layer), line: {width: 0}, ...layer.known ? knownColors(layer.rows) : {color: groupColor(UNKNOWN)}};
    return {type: "scattergl", mode: "markers", x: coordinates(map.x), y: coordinates(map.y), hoverinfo: "skip", marker};
  });
}

function knownColors(rows) { // for Plotly: a number per row, and a colour scale, which has one step per class
  const column = coloring(), {colors, level} = levels(column), n = colors.length;
  if (n === 1) return {color: colors[0]};
  const colorscale = column.kind === "number" ? colors.map((color, step) => [step / (n - 1), color])
    : colors.flatMap((color, step) => [[step / n, color], [(step + 1) / n, color]]);
  return {color: Float32Array.from(rows, row => (level(row) + .5) / n), colorscale, cmin: 0, cmax: 1};
}

function levels(column) { // the colours of rows with a known value, and the index of a row's colour among them
  if (column.kind === "number") {
    const steps = 48, colors = Array.from({length: steps}, (_, step) => rampColor(step / (steps - 1)));
    return {colors, level: row => Math.min(steps - 1, Math.floor(column.share(row) * steps))};
  }
  const ids = column.groups.map(group => group.id).filter(id => id !== UNKNOWN), index = new Map(ids.map((id, position) => [id, position]));
  return {colors: ids.map(id => groupColor(id)), level: row => index.get(column.group(row))};
}

function paintGroups() { // for the canvas: slices of the shuffled rows, with the rows of one colour grouped in each slice
  const {colors, level} = levels(coloring());
  return layers().flatMap(layer => {
    const opacity = opacityOf(layer), slice = Math.max(500, Math.ceil(layer.rows.length / 20)), parts = [];
    if (!layer.known) return [{color: groupColor(UNKNOWN), opacity, rows: layer.rows}];
    for (let start = 0; start < layer.rows.length; start += slice) {
      const perColor = colors.map(color => ({color, opacity, rows: []}));
      for (const row of layer.rows.slice(start, start + slice)) perColor[level(row)].rows.push(row);
      parts.push(...perColor.filter(part => part.rows.length));
    }
    return parts;
  });
}

View.prototype.mark = function () {
  if (!this.width || this.travelling) return;
  const {selected, cursor, hovered} = state, elements = [], size = Math.max(this.size ?? 5, 4);
  const ring = (row, className, radius) => {
    const [cx, cy] = this.screen(row);
    for (const kind of ["under", ""]) elements.push(svg("circle", {cx, cy, r: radius, class: `${className} ${kind}`, "data-row": row}));
  };
  if (selected >= 0) {
    const [x1, y1] = this.screen(selected), neighbors = this.map.neighbors(selected);
    for (const row of neighbors) {
      const [x2, y2] = this.screen(row);
      elements.push(svg("line", {x1, y1, x2, y2}));
    }
    for (const row of neighbors) ring(row, coloring().differ(row, selected) ? "near differs" : "near", size / 2 + 2.5);
    ring(selected, "open", size / 2 + 5);
  }
  for (const row of new Set([cursor, hovered])) if (row >= 0 && row !== selected) ring(row, "pointed", size / 2 + 4.5);
  if (this.region) elements.push(svg("polygon", {class: "region", points: this.region.map(point => point.join()).join(" ")}));
  this.svg.replaceChildren(...elements);
};
