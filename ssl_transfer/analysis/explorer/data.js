// The data of the page: arrays, columns, embeddings. Decodes what packing.py encodes.
const meta = JSON.parse(document.getElementById("meta").textContent);
const byId = id => document.getElementById(id);
const OTHER = 13, UNKNOWN = 0; // group numbers; 1 … 12 have colours of their own
const ARRAYS = {u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array, f8: Float64Array};

function make(tag, properties = {}, ...children) { // text is only ever set as text, so labels may contain anything
  const {data, ...rest} = properties, node = Object.assign(document.createElement(tag), rest);
  Object.assign(node.dataset, data);
  node.append(...children);
  return node;
}

function taken(id) { // the text of an inert script, which is then dropped from the page
  const node = byId(id), text = node.textContent;
  node.remove();
  return text;
}

function bytes(text) {
  const binary = atob(text), array = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) array[i] = binary.charCodeAt(i);
  return array;
}

async function inflated(id) {
  const stream = new Blob([bytes(taken(id))]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function inflatedText(id) { return new TextDecoder().decode(await inflated(id)); }

async function unpacked({type, data}) {
  const planes = await inflated(`pack-${data}`), size = +type[1], count = planes.length / size;
  const flat = new Uint8Array(planes.length);
  for (let plane = 0; plane < size; plane++)
    for (let i = 0, from = plane * count, to = plane; i < count; i++, from++, to += size) flat[to] = planes[from];
  return new ARRAYS[type](flat.buffer);
}

async function openMap(map) {
  const steps = await unpacked(map.points), n = meta.images, [left, right, bottom, top] = map.box;
  const x = new Float32Array(n), y = new Float32Array(n);
  for (let i = 0; i < n; i++) {
    x[i] = left + steps[i] / 65535 * (right - left);
    y[i] = bottom + steps[n + i] / 65535 * (top - bottom);
  }
  const ranks = await unpacked(map.neighbors), cosines = await unpacked(map.similarities), [low, high] = map.span;
  return {
    name: map.name, note: map.note, box: map.box, x, y,
    neighbors: row => Array.from({length: map.k}, (_, rank) => ranks[rank * n + row]),
    similarities: row => Array.from({length: map.k}, (_, rank) => low + cosines[rank * n + row] / 65535 * (high - low)),
  };
}

function shownCosines(similar) { // with as many digits as it takes to tell the nearest from the farthest
  const apart = similar[0] - similar.at(-1), digits = apart < .005 ? 4 : apart < .05 ? 3 : 2;
  return similar.map(cosine => cosine.toFixed(digits));
}

const plain = new Intl.NumberFormat("en", {maximumFractionDigits: 0});
function shownNumber(value, whole) {
  if (whole) return String(value);
  const size = Math.abs(value);
  return size && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : String(+value.toPrecision(4));
}

// A column answers text(row) ("" if unknown), and, to colour by, group(row) and colour(row).
async function openColumn(column) {
  return column.kind === "number" ? numberColumn(column, await unpacked(column.values))
    : wordColumn(column, JSON.parse(await inflatedText(`pack-${column.words}`)), await unpacked(column.codes));
}

function wordColumn(column, words, codes) {
  const group = row => Math.min(codes[row], OTHER);
  const groups = words.slice(0, 12).map((name, index) => ({id: index + 1, name, count: column.counts[index]}));
  const named = column.counts.reduce((sum, count) => sum + count, 0), rest = words.length - 12;
  const unknown = codes.reduce((sum, code) => sum + (code === 0), 0), other = codes.length - named - unknown;
  if (other) groups.push({id: OTHER, name: `other (${plain.format(rest)} more)`, count: other});
  if (unknown) groups.push({id: UNKNOWN, name: "unknown", count: unknown});
  const text = row => codes[row] ? words[codes[row] - 1] : "";
  return {...column, text, group, groups, bin: group, bins: groups, differ: (a, b) => codes[a] && codes[b] && codes[a] !== codes[b]};
}

function numberColumn(column, values) {
  const [low, high] = column.range, known = row => !Number.isNaN(values[row]);
  const share = row => high > low ? Math.min(1, Math.max(0, (values[row] - low) / (high - low))) : .5;
  const group = row => known(row) ? 1 : UNKNOWN, text = row => known(row) ? shownNumber(values[row], column.whole) : "";
  const bins = Array.from({length: 6}, (_, index) => ({id: index + 1, name: binName(column, index), count: 0}));
  const bin = row => known(row) ? 1 + Math.min(5, Math.floor(share(row) * 6)) : UNKNOWN;
  let unknown = 0;
  for (let row = 0; row < values.length; row++) known(row) ? bins[bin(row) - 1].count++ : unknown++;
  if (unknown) bins.push({id: UNKNOWN, name: "unknown", count: unknown});
  const groups = [{id: 1, name: "known", count: values.length - unknown}, ...unknown ? [bins.at(-1)] : []];
  return {...column, values, text, group, groups, share, bin, bins, differ: (a, b) => Math.abs(share(a) - share(b)) > .25}; // of the range of its colours; never of unknown ones
}

function binName({range: [low, high], whole, extremes}, index) {
  const edge = step => shownNumber(low + (high - low) * step / 6, false), [least, most] = extremes;
  if (index === 0) return `up to ${edge(1)}`;
  return index === 5 ? `${edge(5)} and more` : `${edge(index)} to ${edge(index + 1)}`;
}

const noColumn = {
  name: "", kind: "none", colors: true, text: () => "", group: () => 1, bin: () => 1, differ: () => false,
  groups: [{id: 1, name: "all images", count: meta.images}], bins: [{id: 1, name: "all images", count: meta.images}],
};
