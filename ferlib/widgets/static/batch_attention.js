// BatchAttentionExplorer: faces go in and out of a batch; attention and class scores follow.

// Shares one image gives to the members for one class: softmax over j of scale * q[i, c] . k[j, c].
function sharesOf({ query, key, width, classes }, members, asking, c, scale) {
  const start = (image) => (image * classes + c) * width;
  return softmax(members.map((other) => {
    let dot = 0;
    for (let e = 0; e < width; e += 1) dot += query[start(asking) + e] * key[start(other) + e];
    return scale * dot;
  }));
}

// Class scores of one image: alone (its own), what the batch says (CBA), and both (BT = CBA + own).
function scoresOf(net, members, asking, scale) {
  const at = (image, c) => net.value[image * net.classes + c];
  const own = Array.from({ length: net.classes }, (_, c) => at(asking, c));
  const cba = own.map((_, c) => sharesOf(net, members, asking, c, scale)
    .reduce((sum, share, j) => sum + share * at(members[j], c), 0));
  return { alone: own, cba, bt: own.map((v, c) => v + cba[c]) };
}
const WAYS = [["alone", "alone"], ["cba", "the batch (CBA)"], ["bt", "both (BT)"]];

// A face to put in or take out, the share it is given, and the choice to let it ask.
function faceCard({ name, colour, canvas, group, ontoggle, onask }) {
  const toggle = h("button", { type: "button", class: "fer-face", "aria-label": name, title: name, onclick: ontoggle }, canvas);
  const ask = h("input", { type: "radio", name: group, onchange: onask });
  const fill = h("i", { style: `--colour:${colour}` }), share = h("span", { class: "fer-number", "aria-hidden": "true" });
  const element = h("div", { class: "fer-card", role: "listitem" }, toggle,
    h("span", { class: "fer-track", "aria-hidden": "true" }, fill), h("label", {}, ask, share));
  return {
    element,
    set(inside, asks, value, top) {
      attribute(toggle, "aria-pressed", inside);
      element.classList.toggle("fer-out", !inside);
      element.classList.toggle("fer-asks", asks);
      ask.disabled = ask.hidden = !inside;
      attribute(ask, "aria-label", `${name} asks${inside ? `; it is given ${number(value)}` : ""}`);
      ask.checked = asks;
      cut(fill, 0, inside ? (value / top) * 100 : 0);
      write(share, inside ? number(value) : "out");
      element.dataset.value = inside ? value : "";
    },
  };
}

// The whole matrix for one class. Rows ask, columns answer; arrow keys or the pointer choose a cell.
function matrixPanel(most, colourOf, oncell) {
  const side = 300, edge = 16;
  // Cells and dots for the largest batch are made once, a cell one unit wide; a batch shows those it needs.
  const cells = Array.from({ length: most }, (_, y) => Array.from({ length: most }, (__, x) => s("rect", { x, y, width: 1, height: 1 })));
  const lines = cells.map((row) => s("g", {}, row)), grid = s("g", {}, lines);
  const dots = cells.map(() => [s("circle", { class: "fer-mark" }), s("circle", { class: "fer-mark" })]);
  const svg = s("svg", { viewBox: `0 0 ${side + edge} ${side + edge}`, class: "fer-chart fer-cells", tabindex: 0,
    role: "application", "aria-label": "attention matrix of this class: arrow keys move from cell to cell" },
  grid, dots.flat());
  const cursor = s("rect", { class: "fer-cursor" }), asker = s("rect", { class: "fer-askrow" });
  svg.append(asker, cursor);
  const shown = (element, on) => (on ? element.removeAttribute("display") : attribute(element, "display", "none"));
  let count = 0, place = [0, 0];
  const size = () => side / count, frame = (rect, i, j, width) => {
    for (const [name, value] of Object.entries({ x: edge + j * size(), y: edge + i * size(), width, height: size() })) {
      attribute(rect, name, value);
    }
  };
  const go = (i, j) => {
    const next = [clamp(i, 0, count - 1), clamp(j, 0, count - 1)];
    if (next[0] === place[0] && next[1] === place[1]) return;
    place = next;
    frame(cursor, ...place, size());
    oncell();
  };
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  svg.addEventListener("keydown", (event) => {
    if (!step[event.key]) return;
    event.preventDefault();
    go(place[0] + step[event.key][0], place[1] + step[event.key][1]);
  });
  const point = (event) => {
    const box = svg.getBoundingClientRect(), unit = (side + edge) / box.width;
    const j = Math.floor(((event.clientX - box.left) * unit - edge) / size());
    const i = Math.floor(((event.clientY - box.top) * unit - edge) / size());
    if (i >= 0 && j >= 0 && i < count && j < count) go(i, j);
  };
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point);
  return {
    svg,
    place: () => place,
    set(members, rows, asking, top) {
      if (members.length !== count) {
        count = members.length;
        place = place.map((at) => clamp(at, 0, count - 1));
        grid.setAttribute("transform", `translate(${edge} ${edge}) scale(${size()})`);
        cells.forEach((row, i) => {
          shown(lines[i], i < count);
          row.forEach((cell, j) => { shown(cell, j < count); if (i >= count || j >= count) delete cell.dataset.value; });
        });
      }
      dots.forEach((pair, n) => pair.forEach((dot, k) => {
        shown(dot, n < count);
        if (n >= count) return;
        const along = edge + (n + 0.5) * size(), aside = edge / 2 - 1;
        Object.entries({ cx: k ? aside : along, cy: k ? along : aside, r: Math.min(5, size() / 2.4), fill: colourOf(members[n]) })
          .forEach(([name, value]) => attribute(dot, name, value));
      }));
      rows.forEach((row, i) => row.forEach((share, j) => {
        attribute(cells[i][j], "fill", `rgb(${viridis(share / top)})`);
        cells[i][j].dataset.value = share;
      }));
      frame(asker, asking, 0, side);
      frame(cursor, ...place, size());
    },
  };
}

async function render({ model, el }) {
  const data = model.get("data"), { names, labels, classes, colours, presets, scales } = data;
  const [count, height, width] = data.faces.shape;
  const [pixels, query, key, value] = await Promise.all([data.faces, data.query, data.key, data.value].map(unpack));
  const net = { query, key, value, classes: classes.length, width: data.query.shape[2] };
  const face = () => h("canvas", { "aria-hidden": "true", width, height });
  const draw = (canvas, i) => paint(canvas, pixels.subarray(i * height * width, (i + 1) * height * width), width, height);
  const put = (members, asking = model.get("asking")) =>
    change(model, { members, asking: members.includes(asking) ? asking : members[0] });
  const toggle = (i) => {
    const members = model.get("members");
    if (!members.includes(i)) put([...members, i].sort((a, b) => a - b));
    else if (members.length > 1) put(members.filter((other) => other !== i));
    else say("A batch needs at least one face.");
  };
  const group = unique("asks");
  const cards = names.map((name, i) => faceCard({ name, colour: colours[labels[i]], canvas: draw(face(), i), group,
    ontoggle: () => toggle(i), onask: () => change(model, { asking: i }) }));
  const all = Array.from({ length: count }, (_, i) => i);
  const given = presets.map(([name]) => name);
  const starts = [...presets, ...[["everyone", all], ["alone", null]].filter(([name]) => !given.includes(name))];
  const choose = pills({ label: "for the class", options: classes, colours, onchange: (c) => change(model, { cls: c }) });
  const scaling = pills({ label: "scores divided by", options: scales.map(([text]) => text), onchange: (i) => change(model, { scale: scales[i][1] }) });
  const pair = [face(), face()], reading = h("p", {});
  const matrix = matrixPanel(count, (i) => colours[labels[i]], () => say(showCell()));
  const legend = h("p", { class: "fer-key" }, h("span", {}, "0"), h("i", { "aria-hidden": "true" }), h("span", { class: "fer-number" }));
  const rows = classes.map((name, c) => {
    const bars = WAYS.map(() => bar({ colour: colours[c] }));
    return { bars, element: h("div", { role: "row", class: "fer-row" },
      h("span", { role: "rowheader", class: "fer-name" }, h("i", { class: "fer-dot", style: `--colour:${colours[c]}` }), name),
      bars.map((b) => h("span", { role: "cell" }, b.element))) };
  });
  const table = h("div", { class: "fer-table", role: "table", "aria-label": "class scores of the face that asks" },
    h("div", { role: "row", class: "fer-row fer-head" }, ["class", ...WAYS.map(([, text]) => text)].map((text) =>
      h("span", { role: "columnheader" }, text))), rows.map((row) => row.element));
  const verdict = h("p", { class: "fer-verdict" }), tally = h("p", { class: "fer-tally" });
  const { element: said, say } = announcer();
  el.append(figure("batch", "Explore batch attention: put faces into the batch, let one ask, and see whom it listens to",
    h("div", { class: "fer-controls", role: "group", "aria-label": "batches to start from" }, h("span", { class: "fer-legend" }, "batch"),
      starts.map(([name, members]) => button(name, () => put(members || [model.get("asking")])))),
    h("p", { class: "fer-legend" }, "Press a face to put it into the batch or take it out; the round button below lets it ask. ",
      "Bars: the share of its attention that the asking face gives to each."),
    h("div", { class: "fer-tray", role: "list", "aria-label": "faces" }, cards.map((c) => c.element)),
    h("div", { class: "fer-controls" }, choose.element),
    h("div", { class: "fer-controls" }, scaling.element),
    h("div", { class: "fer-two" },
      h("div", {}, h("p", { class: "fer-legend" }, "rows ask, columns answer"), matrix.svg, legend,
        h("div", { class: "fer-pair" }, pair, reading)),
      h("div", {}, table, verdict, tally)), said));

  let grid = [];
  const drawn = [-1, -1];
  const showCell = () => { // the two faces of the chosen cell, and what one gives the other
    const [i, j] = matrix.place(), [one, other] = [i, j].map((at) => model.get("members")[at]);
    [one, other].forEach((who, n) => { if (drawn[n] !== who) { draw(pair[n], who); drawn[n] = who; } });
    write(reading, `${capital(names[one])} gives ${number(grid[i][j])} of its attention to ${i === j ? "itself" : names[other]}.`);
    return reading.textContent;
  };
  const refresh = () => {
    const members = model.get("members"), asking = model.get("asking"), c = model.get("cls"), scale = model.get("scale");
    grid = members.map((i) => sharesOf(net, members, i, c, scale));
    const top = Math.max(...grid.flat());
    const mine = grid[members.indexOf(asking)];
    cards.forEach((card, i) => card.set(members.includes(i), i === asking, mine[members.indexOf(i)], Math.max(...mine)));
    choose.set(c);
    scaling.set(scales.findIndex(([, other]) => Math.abs(other - scale) < 1e-9));
    matrix.set(members, grid, members.indexOf(asking), top);
    legend.lastChild.textContent = number(top);
    showCell();
    const scores = scoresOf(net, members, asking, scale), y = labels[asking];
    const winners = WAYS.map(([way], w) => {
      const p = softmax(scores[way]), winner = argmax(p);
      rows.forEach((row, k) => {
        row.bars[w].set(p[k]);
        row.bars[w].element.dataset.score = scores[way][k];
        row.bars[w].element.classList.toggle("fer-winner", k === winner);
        row.element.classList.toggle("fer-label", k === y);
      });
      return `${classes[winner]} ${number(p[winner])}`;
    });
    const best = members[argmax(mine)];
    verdict.textContent = `${capital(names[asking])}, asking about ${classes[c]}, listens most to ${best === asking ? "itself" : names[best]}` +
      ` (${number(Math.max(...mine))}). Alone it is read as ${winners[0]}, with the batch as ${winners[2]}.`;
    const right = WAYS.map(([way]) => members.filter((m) => argmax(scoresOf(net, members, m, scale)[way]) === labels[m]).length);
    tally.textContent = `Right in this batch of ${members.length}: ${WAYS.map(([, text], w) => `${text} ${right[w]}`).join(", ")}.`;
    say(`${verdict.textContent} ${tally.textContent}`);
  };
  return watch(model, ["members", "asking", "cls", "scale"], refresh);
}
