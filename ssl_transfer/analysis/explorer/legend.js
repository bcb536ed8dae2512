// The legend: the column that colours show, its classes, which can be shown and hidden, or the scale of its numbers.
function fillColors() {
  const choice = byId("color");
  columns.forEach((column, index) => column.colors && choice.append(make("option", {value: index, textContent: column.name})));
  choice.append(make("option", {value: -1, textContent: "(one colour)"}));
  choice.addEventListener("change", () => setColor(+choice.value));
}

function drawLegend() {
  byId("color").value = state.color;
  const column = coloring(), parts = column.kind === "number" ? [rampBar(column)] : [];
  if (column.kind === "word" || column.groups.length > 1) parts.push(classList(column));
  if (state.hidden.size) {
    const all = make("button", {type: "button", className: "plain all", textContent: "Show all"});
    all.addEventListener("click", () => setHidden(new Set()));
    parts.push(all);
  }
  const focused = document.activeElement?.dataset.key;
  byId("legend").replaceChildren(...parts);
  if (focused) byId("legend").querySelector(`[data-key="${focused}"]`)?.focus();
}

function classList(column) {
  const list = make("ul", {className: "classes"});
  for (const group of column.groups) list.append(make("li", {}, toggle(column, group), only(column, group)));
  return list;
}

function toggle(column, group) {
  const swatch = make("i", {className: "swatch"}), shown = !state.hidden.has(group.id);
  const color = column.kind === "number" && group.id !== UNKNOWN ? rampColor(.6) : groupColor(group.id);
  Object.assign(swatch.style, {background: color, borderColor: color});
  const button = make("button", {type: "button", className: "toggle", title: group.name, data: {key: `toggle-${group.id}`}},
    swatch, make("span", {className: "name", textContent: group.name}),
    make("span", {className: "count", textContent: plain.format(group.count)}));
  button.ariaPressed = String(shown);
  button.addEventListener("click", () => {
    const hidden = new Set(state.hidden);
    hidden.delete(group.id) || hidden.add(group.id);
    setHidden(hidden);
  });
  return button;
}

function only(column, group) {
  const button = make("button", {type: "button", className: "only", textContent: "only", data: {key: `only-${group.id}`}});
  button.ariaLabel = `Show only ${group.name}`;
  button.addEventListener("click", () => setHidden(new Set(column.groups.map(each => each.id).filter(id => id !== group.id))));
  return button;
}

function rampBar(column) {
  const bar = make("i"), [low, high] = column.range, [least, most] = column.extremes;
  bar.style.background = `linear-gradient(to top, ${ramp().filter((_, index) => index % 8 === 0).join()})`;
  const ticks = [4, 3, 2, 1, 0].map(step => {
    const value = shownNumber(low + (high - low) * step / 4, column.whole && (high - low) % 4 === 0);
    const beyond = step === 4 && most > high ? "≥ " : step === 0 && least < low ? "≤ " : "";
    return make("li", {textContent: beyond + value});
  });
  return make("div", {className: "ramp"}, bar, make("ol", {}, ...ticks));
}
