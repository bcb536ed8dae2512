// Thumbnails are cut from sprite sheets. A sheet is decoded when one of its pictures is needed, and released after that.
const {px, across} = meta.thumbnail, perSheet = across * across;
const tiles = new Map(), requested = new Map(); // row -> ImageBitmap; sheet -> rows waiting for it
const MOST_TILES = 6000;

function tile(row) { // a promise of an ImageBitmap
  const cached = tiles.get(row);
  if (cached) return cached;
  const sheet = Math.floor(row / perSheet);
  if (!requested.has(sheet)) { requested.set(sheet, []); queueMicrotask(() => cut(sheet)); }
  const promise = new Promise(resolve => requested.get(sheet).push({row, resolve}));
  tiles.set(row, promise);
  if (tiles.size > MOST_TILES) tiles.delete(tiles.keys().next().value);
  return promise;
}

const blobs = new Map();
function sheetBlob(sheet) {
  if (!blobs.has(sheet)) blobs.set(sheet, new Blob([bytes(takeText(`sheet-${sheet}`))], {type: "image/webp"}));
  return blobs.get(sheet);
}

async function cut(sheet) {
  const rows = requested.get(sheet);
  requested.delete(sheet);
  const sheetImage = await createImageBitmap(sheetBlob(sheet));
  await Promise.all(rows.map(async ({row, resolve}) => {
    const index = row % perSheet, left = index % across * px, top = Math.floor(index / across) * px;
    const bitmap = await createImageBitmap(sheetImage, left, top, px, px);
    ready.set(row, bitmap);
    if (ready.size > MOST_TILES) ready.delete(ready.keys().next().value);
    resolve(bitmap);
  }));
  sheetImage.close();
}

const ready = new Map(); // row -> ImageBitmap that can be drawn at once
function picture(row, label = `Image of row ${row}`) {
  const canvas = make("canvas", {className: "picture", width: px, height: px, ariaLabel: label, data: {row}});
  canvas.setAttribute("role", "img");
  const draw = bitmap => canvas.getContext("2d").drawImage(bitmap, 0, 0);
  ready.has(row) ? draw(ready.get(row)) : tile(row).then(draw);
  return canvas;
}

// Draws pictures on the embedding, framed in their colour. Pictures that are not decoded yet are drawn as soon as they are.
function paintPictures(view) {
  const context = view.context(), side = 38, rows = view.spreadRows(side + 6), missing = [];
  view.painted = {side, rows};
  for (const row of rows) {
    const bitmap = ready.get(row), [x, y] = view.screen(row);
    if (!bitmap) { missing.push(row); continue; }
    context.fillStyle = colorOf(row);
    context.fillRect(x - side / 2 - 2, y - side / 2 - 2, side + 4, side + 4);
    context.drawImage(bitmap, x - side / 2, y - side / 2, side, side);
  }
  if (missing.length) Promise.all(missing.map(tile)).then(() => state.pictures && view.repaint());
}
