// The data of the page: arrays, columns and embeddings, decoded from what packing.py encodes.
const meta = JSON.parse(document.getElementById("meta").textContent);
const byId = id => document.getElementById(id);
const OTHER = 13, UNKNOWN = 0; // group numbers; groups 1 to 12 have their own colours
const ARRAYS = {u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array, f8: Float64Array};

function make(tag, properties = {}, ...children) { // text is always inserted as text, never as HTML, so labels may contain anything
  const {data, ...rest} = properties, node = Object.assign(document.createElement(tag), rest);
  Object.assign(node.dataset, data);
  node.append(...children);
  return node;
}

function takeText(id) { // the text of an inert script element, which is removed from the page
  const node = byId(id), text = node.textContent;
  node.remove();
  return text;
}

function bytes(text) {
  const binary = atob(text), array = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) array[i] = binary.charCodeAt(i);
  return array;
}

async function inflate(id) {
  const stream = new Blob([bytes(takeText(id))]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function inflateText(id) { return new TextDecoder().decode(await inflate(id)); }

async function unpack({type, data}) {
  const planes = await inflate(`pack-${data}`), size = +type[1], count = planes.length / size;
  const flat = new Uint8Array(planes.length);
  for (let plane = 0; plane < size; plane++)
    for (let i = 0, from = plane * count, to = plane; i < count; i++, from++, to += size) flat[to] = planes[from];
  return new ARRAYS[type](flat.buffer);
}

async function openMap(map) {
  const steps = await unpack(map.points), n = meta.images, [left, right, bottom, top] = map.box;
  const x = new Float32Array(n), y = new Float32Array(n);
  for (let i = 0; i < n; i++) {
    x[i] = left + steps[i] / 65535 * (right - left);
    y[i] = bottom + steps[n + i] / 65535 * (top - bottom);
  }
  const ranks = await unpack(map.neighbors), cosines = await unpack(map.similarities), [low, high] = map.span;
  return {
    name: map.name, note: map.note, box: map.box, x, y,
    neighbors: row => Array.from({length: map.k}, (_, rank) => ranks[rank * n + row]),
    similarities: row => Array.from({length: map.k}, (_, rank) => low + cosines[rank * n + row] / 65535 * (high - low)),
  };
}

function shownCosines(cosines) { // with enough digits to distinguish the nearest from the farthest
  const range = cosines[0] - cosines.at(-1), digits = range < .005 ? 4 : range < .05 ? 3 : 2;
  return cosines.map(cosine => cosine.toFixed(digits));
}

const plain = new Intl.NumberFormat("en", {maximumFractionDigits: 0});
function shownNumber(value, whole) {
  if (whole) return String(value);
  const size = Math.abs(value);
  return size && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : String(+value.toPrecision(4));
}

// A column has text(row), "" if unknown, and group(row) for colours; bin(row) for counts; differ(row, row).
async function openColumn(column) {
  return column.kind === "number" ? numberColumn(column, await unpack(column.values))
    : wordColumn(column, JSON.parse(await inflateText(`pack-${column.words}`)), await unpack(column.codes));
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
  return {...column, values, text, group, groups, share, bin, bins, differ: (a, b) => Math.abs(share(a) - share(b)) > .25}; // a share is a position in the range of the colours; unknown values never differ
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
