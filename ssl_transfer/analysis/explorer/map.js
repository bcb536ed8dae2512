// A view of an embedding: Plotly draws the points, a canvas above them images and moving points, an SVG the marks.
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
    this.choice.append(...maps.map((map, place) => make("option", {value: place, textContent: map.name})));
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

  // Plane to screen: x' = ax x + bx, y' = ay y + by.
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
    const whole = this.wholeRange(), size = whole.x[1] - whole.x[0];
    return ["x", "y"].every(axis => [0, 1].every(end => Math.abs(whole[axis][end] - this.range[axis][end]) < size * 1e-6));
  }

  wholeRange() { // both axes in one scale, a margin around
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
    this.range = old ? resized(this.range, old, width, height) : this.wholeRange();
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

  whole() { this.show(this.wholeRange()); }

  zoom(factor) {
    const grown = ([low, high]) => [0, 1].map(end => (low + high) / 2 + (end - .5) * (high - low) * factor);
    this.show({x: grown(this.range.x), y: grown(this.range.y)});
  }

  reveal(row) { // moves the view so that it contains a point
    if (!this.built || this.sees(row)) return;
    const around = (value, [low, high]) => [value - (high - low) / 2, value + (high - low) / 2];
    this.show({x: around(this.map.x[row], this.range.x), y: around(this.map.y[row], this.range.y)});
  }

  markerSize() { // the fewer points there are to see, the larger they are
    let seen = 0;
    const [left, right] = this.range.x, [bottom, top] = this.range.y, {x, y} = this.map;
    for (let row = 0; row < meta.images; row++) if (x[row] >= left && x[row] <= right && y[row] >= bottom && y[row] <= top) seen++;
    return Math.max(2.5, Math.min(11, 14 - 2.3 * Math.log10(Math.max(seen, 1))));
  }

  resizeMarkers() {
    if (Math.abs(this.markerSize() / this.size - 1) < .2) return;
    this.size = this.markerSize();
    Plotly.restyle(this.plot, {"marker.size": this.size});
  }

  pen() { // for the canvas, cleared, in CSS pixels
    const pen = this.canvas.getContext("2d"), ratio = devicePixelRatio || 1;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, this.width, this.height);
    return pen;
  }

  repaint() {
    if (this.travelling || !this.width) return;
    this.painted = null;
    state.pictures ? paintPictures(this) : this.pen();
  }

  scattered(side) { // rows in view whose squares do not overlap, spread over the map
    const kept = new Map(), free = [], cell = value => Math.floor(value / side);
    for (const row of this.onePerCell(side / 2)) {
      const [x, y] = this.screen(row), near = [-1, 0, 1].flatMap(i => [-1, 0, 1].map(j => kept.get(`${cell(x) + i},${cell(y) + j}`)));
      if (near.some(other => other && Math.abs(other[0] - x) < side && Math.abs(other[1] - y) < side)) continue;
      kept.set(`${cell(x)},${cell(y)}`, [x, y]);
      free.push(row);
    }
    return free;
  }

  onePerCell(side) { // in view, the one nearest to the middle of each cell; of a selection if there is one
    const {ax, bx, ay, by} = this.transform(), across = Math.ceil(this.width / side), best = new Map();
    for (let row = 0; row < meta.images; row++) {
      const x = ax * this.map.x[row] + bx, y = ay * this.map.y[row] + by;
      if (x < 0 || y < 0 || x > this.width || y > this.height || !pickable(row)) continue;
      if (state.chosenMask && !state.chosenMask[row]) continue;
      const column = Math.floor(x / side), line = Math.floor(y / side), cell = line * across + column;
      const far = Math.abs(x / side - column - .5) + Math.abs(y / side - line - .5), held = best.get(cell);
      if (!held || far < held.far) best.set(cell, {row, far});
    }
    return [...best.values()].map(held => held.row);
  }

  async turnTo(map) { // points move from their coordinates in the old embedding to those in the new one
    const before = this.map, old = this.built && this.transform();
    this.map = map;
    this.describe();
    if (!old) return;
    this.range = this.wholeRange();
    const run = this.travelling = Symbol(map.name);
    this.svg.replaceChildren();
    this.plot.classList.add("veiled");
    await travel(this, before, old, run);
    if (this.travelling !== run) return;
    this.travelling = null;
    this.draw();
    this.plot.classList.remove("veiled");
  }
}

function resized(range, old, width, height) { // the same middle and scale, seen through a window of another size
  const grown = ([low, high], share) => [(low + high) / 2 - (high - low) * share / 2, (low + high) / 2 + (high - low) * share / 2];
  const zoom = Math.min(width / old.width, height / old.height); // what was in view stays in view
  return {x: grown(range.x, width / old.width / zoom), y: grown(range.y, height / old.height / zoom)};
}

async function travel(view, before, old, run) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const begin = performance.now(), span = 550, groups = paintGroups(), {map} = view, now = view.transform();
  const place = {x: new Float32Array(meta.images), y: new Float32Array(meta.images)};
  for (let time = 0; time < 1;) {
    time = Math.min(1, (await frame() - begin) / span);
    if (view.travelling !== run) return;
    const s = time < .5 ? 4 * time ** 3 : 1 - (2 - 2 * time) ** 3 / 2, r = 1 - s;
    for (let row = 0; row < meta.images; row++) {
      place.x[row] = r * (old.ax * before.x[row] + old.bx) + s * (now.ax * map.x[row] + now.bx);
      place.y[row] = r * (old.ay * before.y[row] + old.by) + s * (now.ay * map.y[row] + now.by);
    }
    (meta.images < 5000 ? paintDiscs : paintPixels)(view, place, groups);
  }
}

function paintDiscs(view, {x, y}, groups) {
  const pen = view.pen();
  for (const {color, opacity, rows} of groups) {
    Object.assign(pen, {fillStyle: color, globalAlpha: opacity});
    for (const row of rows) {
      pen.beginPath();
      pen.arc(x[row], y[row], view.size / 2, 0, 7);
      pen.fill();
    }
  }
  pen.globalAlpha = 1;
}

function paintPixels(view, {x, y}, groups) { // a canvas would need seconds for a hundred thousand discs
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
  const late = setTimeout(() => resolve(performance.now()), 200); // a page in the background gets no frames
  requestAnimationFrame(time => { clearTimeout(late); resolve(Math.max(time, 0)); });
});
