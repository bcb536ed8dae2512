// Find points: near the pointer, in a direction, or inside a drawn line. All distances are in pixels of the stage.
function rowAt(view, x, y, within) { // where pictures are shown, anywhere on the picture
  const {side, rows} = view.painted ?? {rows: []};
  const covers = row => view.screen(row).every((center, axis) => Math.abs(center - [x, y][axis]) <= side / 2);
  return rows.find(covers) ?? nearestRow(view, x, y, within);
}

function nearestRow(view, x, y, within) {
  const {ax, bx, ay, by} = view.transform();
  let best = -1, smallest = within * within;
  for (let row = 0; row < meta.images; row++) {
    const dx = ax * view.map.x[row] + bx - x;
    if (dx > within || dx < -within) continue;
    const dy = ay * view.map.y[row] + by - y, squared = dx * dx + dy * dy;
    if (squared <= smallest && pickable(row)) { smallest = squared; best = row; }
  }
  return best;
}

const DIRECTIONS = {ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1]};
function rowTowards(view, from, key) { // the nearest point within 45 degrees of the direction
  const [ux, uy] = DIRECTIONS[key], {ax, bx, ay, by} = view.transform(), [x, y] = view.screen(from);
  let best = -1, smallest = Infinity;
  for (let row = 0; row < meta.images; row++) {
    const dx = ax * view.map.x[row] + bx - x, dy = ay * view.map.y[row] + by - y;
    const along = dx * ux + dy * uy, across = Math.abs(dx * uy) + Math.abs(dy * ux);
    if (along <= 0 || across > along) continue;
    const squared = dx * dx + dy * dy;
    if (squared < smallest && row !== from && pickable(row)) { smallest = squared; best = row; }
  }
  return best;
}

function rowsInside(view, line) { // points inside a closed line, by the even-odd rule
  const xs = line.map(point => point[0]), ys = line.map(point => point[1]);
  const left = Math.min(...xs), right = Math.max(...xs), top = Math.min(...ys), bottom = Math.max(...ys);
  const {ax, bx, ay, by} = view.transform(), rows = [];
  for (let row = 0; row < meta.images; row++) {
    const x = ax * view.map.x[row] + bx, y = ay * view.map.y[row] + by;
    if (x < left || x > right || y < top || y > bottom || !pickable(row)) continue;
    let inside = false;
    for (let i = 0, j = xs.length - 1; i < xs.length; j = i++)
      if (ys[i] > y !== ys[j] > y && x < (xs[j] - xs[i]) * (y - ys[i]) / (ys[j] - ys[i]) + xs[i]) inside = !inside;
    if (inside) rows.push(row);
  }
  return rows;
}

// The pointer on an embedding: hover, click, and draw a lasso or a box. Plotly handles moving and zooming.
function listen(view) {
  const stage = view.stage, positionOf = event => {
    const box = stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  let start = null, line = null;
  stage.addEventListener("pointerdown", event => {
    if (event.button) return;
    start = positionOf(event);
    state.active = views.indexOf(view);
    stage.classList.add("by-pointer"); // no focus ring until a key is used
    stage.focus({preventScroll: true});
    if (state.tool !== "move") { line = [start]; stage.setPointerCapture(event.pointerId); }
  });
  stage.addEventListener("pointermove", event => {
    const point = positionOf(event);
    if (line) return drawTo(view, line, point);
    if (start || event.buttons) return hover(view, -1);
    hover(view, rowAt(view, ...point, event.pointerType === "touch" ? 24 : 14), event);
  });
  stage.addEventListener("pointerleave", () => line || hover(view, -1));
  addEventListener("pointerup", event => {
    if (!start) return;
    const [x, y] = positionOf(event), near = ([a, b]) => Math.hypot(a - start[0], b - start[1]) < 4;
    const finishedLine = line, isClick = [[x, y], ...line ?? []].every(near); // a lasso may end where it began
    start = line = null;
    view.region = null;
    view.mark();
    if (isClick) click(view, x, y);
    else if (finishedLine?.length > 1) finish(view, finishedLine, event.shiftKey);
  });
  stage.addEventListener("mousedown", event => state.tool === "move" || event.stopPropagation(), true);
}

function drawTo(view, line, [x, y]) {
  const [x0, y0] = line[0], last = line.at(-1);
  if (state.tool === "box") line.splice(1, 3, [x, y0], [x, y], [x0, y]);
  else if (Math.hypot(x - last[0], y - last[1]) >= 2) line.push([x, y]);
  hover(view, -1);
  view.region = line;
  view.mark();
}

function click(view, x, y) {
  const row = rowAt(view, x, y, 14);
  if (row >= 0) return select(row);
  if (state.tool === "move") dismiss();
  if (performance.now() - (view.lastMiss ?? -1e3) < 350) view.showAll(); // a double click that hits no point
  view.lastMiss = performance.now();
}

function finish(view, line, add) {
  const rows = rowsInside(view, line);
  choose(add && state.chosen ? [...new Set([...state.chosen, ...rows])] : rows);
}
