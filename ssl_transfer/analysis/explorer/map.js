// A view of an embedding. Plotly draws the points, a canvas above them draws images and moving points, and an SVG draws the marks
// (see marks.js).
class View {
  constructor(slot) {
    this.slot = slot;
    this.map = maps[state.shown[slot]];
    this.region = null;
    this.built = false;
    this.build();
    byId("maps").append(this.element);
    this.resize();
    this.resizing.observe(this.stage);
  }

  build() {
    this.choice = make("select", {ariaLabel: "Backbone", id: `backbone-${this.slot}`});
    this.choice.append(...maps.map((map, index) => make("option", {value: index, textContent: map.name})));
    this.choice.addEventListener("change", () => setBackbone(this.slot, +this.choice.value));
    this.note = make("span", {className: "note"});
    this.plot = make("div", {className: "plot"});
    this.canvas = make("canvas", {className: "paint", ariaHidden: "true"});
    this.svg = svg("svg", {class: "marks", "aria-hidden": "true"});
    this.stage = make("div", {className: "stage", tabIndex: 0}, this.plot, this.canvas, this.svg);
    this.stage.setAttribute("role", "application");
    this.element = make("section", {className: "map"}, make("div", {}, this.choice, this.note), this.stage);
    this.describe();
    listen(this);
    this.resizing = new ResizeObserver(() => this.resize());
  }

  describe() {
    this.choice.value = maps.indexOf(this.map);
    this.note.textContent = this.note.title = this.map.note;
    this.stage.ariaLabel = `Embedding of ${this.map.name}. Arrow keys walk from point to point, Enter opens one, ? lists all keys.`;
  }

  remove() {
    this.resizing.disconnect();
    if (this.built) Plotly.purge(this.plot);
    this.element.remove();
  }

  // From the coordinates of the embedding to pixels of the stage: x' = ax x + bx, y' = ay y + by.
  transform() {
    const [left, right] = this.range.x, [bottom, top] = this.range.y;
    const ax = this.width / (right - left), ay = -this.height / (top - bottom);
    return {ax, bx: -ax * left, ay, by: -ay * top};
  }

  screen(row) {
    const {ax, bx, ay, by} = this.transform();
    return [ax * this.map.x[row] + bx, ay * this.map.y[row] + by];
  }

  sees(row) {
    const [x, y] = this.screen(row);
    return x >= 0 && y >= 0 && x <= this.width && y <= this.height;
  }

  isWhole() {
    const full = this.fullRange(), size = full.x[1] - full.x[0];
    return ["x", "y"].every(axis => [0, 1].every(end => Math.abs(full[axis][end] - this.range[axis][end]) < size * 1e-6));
  }

  fullRange() { // the range that shows all points, with the same scale on both axes and a margin
    const [left, right, bottom, top] = this.map.box, pad = 28;
    const scale = Math.max((right - left) / Math.max(1, this.width - 2 * pad), (top - bottom) / Math.max(1, this.height - 2 * pad)) || 1e-3;
    const around = (middle, size) => [middle - size * scale / 2, middle + size * scale / 2];
    return {x: around((left + right) / 2, this.width), y: around((bottom + top) / 2, this.height)};
  }

  resize() {
    const {clientWidth: width, clientHeight: height} = this.stage;
    if (!width || !height || width === this.width && height === this.height) return;
    const old = this.built && !this.isWhole() && {width: this.width, height: this.height};
    Object.assign(this, {width, height});
    const ratio = devicePixelRatio || 1;
    Object.assign(this.canvas, {width: width * ratio, height: height * ratio});
    this.range = old ? resized(this.range, old, width, height) : this.fullRange();
    this.draw();
  }

  layout() {
    const axis = range => ({range: [...range], visible: false, fixedrange: false, autorange: false});
    return {
      width: this.width, height: this.height, margin: {l: 0, r: 0, t: 0, b: 0}, xaxis: axis(this.range.x),
      yaxis: axis(this.range.y), hovermode: false, dragmode: state.tool === "move" ? "pan" : false, showlegend: false,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    };
  }

  draw() {
    if (!this.width) return;
    this.size = this.markerSize();
    const options = {displayModeBar: false, scrollZoom: true, doubleClick: false, plotGlPixelRatio: devicePixelRatio || 1};
    Plotly.react(this.plot, traces(this.map, this.size), this.layout(), options);
    if (!this.built) {
      this.built = true;
      this.plot.on("plotly_relayouting", event => this.moved(event));
      this.plot.on("plotly_relayout", event => { this.moved(event); this.resizeMarkers(); });
    }
    this.mark();
    this.repaint();
  }

  moved(event) {
    const side = (axis, end) => event[`${axis}.range[${end}]`] ?? event[`${axis}.range`]?.[end];
    if (side("xaxis", 0) === undefined || side("yaxis", 0) === undefined) return;
    this.range = {x: [side("xaxis", 0), side("xaxis", 1)], y: [side("yaxis", 0), side("yaxis", 1)]};
    if (this.pointed) hover(this, -1);
    this.mark();
    this.repaint();
  }

  show(range) { if (this.built) Plotly.relayout(this.plot, {"xaxis.range": range.x, "yaxis.range": range.y}); }

  showAll() { this.show(this.fullRange()); }

  zoom(factor) {
    const scaled = ([low, high]) => [0, 1].map(end => (low + high) / 2 + (end - .5) * (high - low) * factor);
    this.show({x: scaled(this.range.x), y: scaled(this.range.y)});
  }

  reveal(row) { // moves the view so that it contains a point
    if (!this.built || this.sees(row)) return;
    const around = (value, [low, high]) => [value - (high - low) / 2, value + (high - low) / 2];
    this.show({x: around(this.map.x[row], this.range.x), y: around(this.map.y[row], this.range.y)});
  }

  markerSize() { // the fewer points are in view, the larger they are
    let visible = 0;
    const [left, right] = this.range.x, [bottom, top] = this.range.y, {x, y} = this.map;
    for (let row = 0; row < meta.images; row++) if (x[row] >= left && x[row] <= right && y[row] >= bottom && y[row] <= top) visible++;
    return Math.max(2.5, Math.min(11, 14 - 2.3 * Math.log10(Math.max(visible, 1))));
  }

  resizeMarkers() {
    if (Math.abs(this.markerSize() / this.size - 1) < .2) return;
    this.size = this.markerSize();
    Plotly.restyle(this.plot, {"marker.size": this.size});
  }

  context() { // clears the canvas; the returned context draws in CSS pixels
    const context = this.canvas.getContext("2d"), ratio = devicePixelRatio || 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    return context;
  }

  repaint() {
    if (this.travelling || !this.width) return;
    this.painted = null;
    state.pictures ? paintPictures(this) : this.context();
  }

  spreadRows(side) { // rows in view, spread over the stage so that squares of this side around their points do not overlap
    const occupied = new Map(), rows = [], cell = value => Math.floor(value / side);
    for (const row of this.onePerCell(side / 2)) {
      const [x, y] = this.screen(row), nearby = [-1, 0, 1].flatMap(i => [-1, 0, 1].map(j => occupied.get(`${cell(x) + i},${cell(y) + j}`)));
      if (nearby.some(center => center && Math.abs(center[0] - x) < side && Math.abs(center[1] - y) < side)) continue;
      occupied.set(`${cell(x)},${cell(y)}`, [x, y]);
      rows.push(row);
    }
    return rows;
  }

  onePerCell(side) { // divides the stage into cells; the row nearest to the middle of each, from the selection if there is one
    const {ax, bx, ay, by} = this.transform(), columns = Math.ceil(this.width / side), best = new Map();
    for (let row = 0; row < meta.images; row++) {
      const x = ax * this.map.x[row] + bx, y = ay * this.map.y[row] + by;
      if (x < 0 || y < 0 || x > this.width || y > this.height || !pickable(row)) continue;
      if (state.chosenMask && !state.chosenMask[row]) continue;
      const column = Math.floor(x / side), cellRow = Math.floor(y / side), cell = cellRow * columns + column;
      const distance = Math.abs(x / side - column - .5) + Math.abs(y / side - cellRow - .5), current = best.get(cell);
      if (!current || distance < current.distance) best.set(cell, {row, distance});
    }
    return [...best.values()].map(current => current.row);
  }

  async switchTo(map) { // shows another embedding; points move from their old to their new coordinates
    const oldMap = this.map, oldTransform = this.built && this.transform();
    this.map = map;
    this.describe();
    if (!oldTransform) return;
    this.range = this.fullRange();
    const run = this.travelling = Symbol(map.name);
    this.svg.replaceChildren();
    this.plot.classList.add("veiled");
    await animate(this, oldMap, oldTransform, run);
    if (this.travelling !== run) return;
    this.travelling = null;
    this.draw();
    this.plot.classList.remove("veiled");
  }
}

function resized(range, old, width, height) { // the range after a change of size, with the same middle
  const scaled = ([low, high], share) => [(low + high) / 2 - (high - low) * share / 2, (low + high) / 2 + (high - low) * share / 2];
  const zoom = Math.min(width / old.width, height / old.height); // what was in view remains in view
  return {x: scaled(range.x, width / old.width / zoom), y: scaled(range.y, height / old.height / zoom)};
}

async function animate(view, oldMap, oldTransform, run) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const started = performance.now(), duration = 550, groups = paintGroups(), {map} = view, transform = view.transform();
  const positions = {x: new Float32Array(meta.images), y: new Float32Array(meta.images)};
  for (let time = 0; time < 1;) {
    time = Math.min(1, (await frame() - started) / duration);
    if (view.travelling !== run) return;
    const weight = time < .5 ? 4 * time ** 3 : 1 - (2 - 2 * time) ** 3 / 2, oldWeight = 1 - weight;
    for (let row = 0; row < meta.images; row++) {
      positions.x[row] = oldWeight * (oldTransform.ax * oldMap.x[row] + oldTransform.bx) + weight * (transform.ax * map.x[row] + transform.bx);
      positions.y[row] = oldWeight * (oldTransform.ay * oldMap.y[row] + oldTransform.by) + weight * (transform.ay * map.y[row] + transform.by);
    }
    (meta.images < 5000 ? paintDiscs : paintPixels)(view, positions, groups);
  }
}

function paintDiscs(view, {x, y}, groups) {
  const context = view.context();
  for (const {color, opacity, rows} of groups) {
    Object.assign(context, {fillStyle: color, globalAlpha: opacity});
    for (const row of rows) {
      context.beginPath();
      context.arc(x[row], y[row], view.size / 2, 0, 7);
      context.fill();
    }
  }
  context.globalAlpha = 1;
}

function paintPixels(view, {x, y}, groups) { // 100,000 discs would take seconds
  const {width, height} = view.canvas, ratio = width / view.width, side = Math.max(1, Math.round(view.size * ratio * .9));
  const image = new ImageData(width, height), pixels = new Uint32Array(image.data.buffer);
  for (const {color, opacity, rows} of groups) {
    const [red, green, blue] = [1, 3, 5].map(at => parseInt(color.slice(at, at + 2), 16));
    const value = (Math.round(opacity * 255) << 24 | blue << 16 | green << 8 | red) >>> 0;
    for (const row of rows) {
      const left = Math.round(x[row] * ratio - side / 2), top = Math.round(y[row] * ratio - side / 2);
      if (left < 0 || top < 0 || left + side > width || top + side > height) continue;
      for (let line = top; line < top + side; line++) pixels.fill(value, line * width + left, line * width + left + side);
    }
  }
  view.canvas.getContext("2d").putImageData(image, 0, 0);
}

const frame = () => new Promise(resolve => {
  const timeout = setTimeout(() => resolve(performance.now()), 200); // the browser draws no frames of a page in the background
  requestAnimationFrame(time => { clearTimeout(timeout); resolve(Math.max(time, 0)); });
});
