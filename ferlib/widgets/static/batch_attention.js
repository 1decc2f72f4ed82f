// BatchAttentionExplorer: faces go in and out of a batch; attention, its computation and class scores follow.

const WAYS = [["alone", "alone"], ["cba", "from the batch (CBA)"], ["bt", "both (BT)"]];

// A face to put in or take out, its weight in the row that is looked at, and the choice of that row.
function faceCard({ name, colour, canvas, group, ontoggle, onchoose }) {
  const toggle = h("button", { type: "button", class: "fer-face", "aria-label": name, title: name, onclick: ontoggle }, canvas);
  const choose = h("input", { type: "radio", name: group, onchange: onchoose });
  const fill = h("i", { style: `--colour:${colour}` }), share = h("span", { class: "fer-number", "aria-hidden": "true" });
  const element = h("div", { class: "fer-card", role: "listitem" }, toggle,
    h("span", { class: "fer-track", "aria-hidden": "true" }, fill), h("label", {}, choose, share));
  return {
    element,
    set(inside, chosen, value, top) {
      attribute(toggle, "aria-pressed", inside);
      element.classList.toggle("fer-out", !inside);
      element.classList.toggle("fer-asks", chosen);
      choose.disabled = choose.hidden = !inside;
      attribute(choose, "aria-label", `${name} attends${inside ? `; its weight in the row is ${number(value)}` : ""}`);
      choose.checked = chosen;
      cut(fill, 0, inside ? (value / top) * 100 : 0);
      write(share, inside ? number(value) : "out");
      element.dataset.value = inside ? value : "";
    },
  };
}

// The whole matrix of one class, faces on its axes; arrow keys or the pointer choose a cell.
function matrixPanel(most, faceOf, oncell) {
  const side = 300, edge = 30;
  // Cells and faces for the largest batch are made once, a cell one unit wide; a batch shows those it needs.
  const cells = Array.from({ length: most }, (_, y) => Array.from({ length: most }, (__, x) => s("rect", { x, y, width: 1, height: 1 })));
  const lines = cells.map((row) => s("g", {}, row)), grid = s("g", {}, lines);
  const heads = cells.map(() => [0, 1].map(() => s("image", { class: "fer-axisface", preserveAspectRatio: "none" })));
  const svg = s("svg", { viewBox: `0 0 ${side + edge} ${side + edge}`, class: "fer-chart fer-cells", tabindex: 0,
    role: "application", "aria-label": "attention matrix of this class, rows attend to columns: arrow keys move from cell to cell" },
  grid, heads.flat());
  const cursor = s("rect", { class: "fer-cursor" }), row = s("rect", { class: "fer-askrow" });
  svg.append(row, cursor);
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
  arrowKeys(svg, (dx, dy) => go(place[0] + dy, place[1] + dx));
  svg.addEventListener("pointerdown", (event) => {
    const box = svg.getBoundingClientRect(), unit = (side + edge) / box.width;
    const j = Math.floor(((event.clientX - box.left) * unit - edge) / size());
    const i = Math.floor(((event.clientY - box.top) * unit - edge) / size());
    if (i >= 0 && j >= 0 && i < count && j < count) go(i, j);
  });
  return {
    svg, go,
    place: () => place,
    set(members, rows, chosen, top) {
      if (members.length !== count) {
        count = members.length;
        place = place.map((at) => clamp(at, 0, count - 1));
        grid.setAttribute("transform", `translate(${edge} ${edge}) scale(${size()})`);
        cells.forEach((line, i) => {
          shown(lines[i], i < count);
          line.forEach((cell, j) => { shown(cell, j < count); if (i >= count || j >= count) delete cell.dataset.value; });
        });
      }
      heads.forEach((pair, n) => pair.forEach((head, k) => {
        shown(head, n < count);
        if (n >= count) return;
        const width = Math.min(edge - 3, size() - 1), along = edge + (n + 0.5) * size() - width / 2;
        Object.entries({ x: k ? edge - 3 - width : along, y: k ? along : edge - 3 - width, width, height: width, href: faceOf(members[n]) })
          .forEach(([name, value]) => attribute(head, name, value));
      }));
      rows.forEach((line, i) => line.forEach((weight, j) => {
        attribute(cells[i][j], "fill", `rgb(${viridis(weight / top)})`);
        cells[i][j].dataset.value = weight;
      }));
      frame(row, chosen, 0, side);
      frame(cursor, ...place, size());
    },
  };
}

// The attending face and those it attends to, with lines as wide as the weights.
function linesPanel(faceOf, nameOf) {
  const svg = s("svg", { class: "fer-chart fer-beams", role: "img" });
  return {
    svg,
    set(image, members, row) {
      const gap = 34, high = Math.max(1, members.length) * gap, middle = high / 2;
      attribute(svg, "viewBox", `0 0 240 ${high}`);
      attribute(svg, "aria-label", `${nameOf(image)} attends to: ${members.map((who, j) => `${nameOf(who)} ${number(row[j])}`).join(", ")}`);
      svg.replaceChildren(
        ...members.map((_, j) => s("path", { class: "fer-beam", d: `M44 ${middle}C120 ${middle} 110 ${(j + 0.5) * gap} 176 ${(j + 0.5) * gap}`,
          "stroke-width": (14 * row[j]).toFixed(2), "stroke-opacity": (0.15 + 0.85 * row[j]).toFixed(2) })),
        s("image", { x: 4, y: middle - 20, width: 40, height: 40, href: faceOf(image) }),
        ...members.flatMap((who, j) => [s("image", { x: 178, y: j * gap + 2, width: 30, height: 30, href: faceOf(who) }),
          s("text", { x: 213, y: (j + 0.5) * gap + 4 }, number(row[j]))]));
    },
  };
}

// One cell of the matrix in five steps with the numbers of this batch.
function cellPanel({ names, classes }, net, onedit, ...more) {
  let last = null;
  const maps = (which, image, c) => Array.from(which.subarray((image * net.classes + c) * net.width, (image * net.classes + c + 1) * net.width));
  const sliders = new Map();
  function rowOf({ members, row, j }) {
    const list = h("div", { class: "fer-weights" });
    members.forEach((who, n) => {
      if (!sliders.has(who)) {
        sliders.set(who, slider({ label: names[who], min: 0, max: 1, step: 0.01, onchange: (value) => onedit(who, value) }));
      }
      const one = sliders.get(who);
      one.set(Math.round(row[n] * 100) / 100, number(row[n], 3));
      one.element.classList.toggle("fer-here", n === j);
      list.append(one.element);
    });
    return list;
  }
  function draw(step, body) {
    const { members, i, j, c, scale, row, dots, value, edits } = last, one = members[i], other = members[j];
    const q = maps(net.query, one, c), k = maps(net.key, other, c), both = q.map((v, e) => v * k[e]);
    const wide = Math.round(Math.sqrt(q.length)), kids = [];
    if (step === 0) {
      const top = greatest(q.concat(k));
      kids.push(h("div", { class: "fer-product" }, heatBox(q, wide, `query of ${names[one]}`, top), h("span", {}, "×"),
        heatBox(k, wide, `key of ${names[other]}`, top), h("span", {}, "="), heatBox(both, wide, "product, place by place")),
      line(`The sum over the ${q.length} places is q · k = `, h("b", {}, number(dots[j], 3)), "."));
    } else if (step === 1) {
      kids.push(line(`${number(dots[j], 3)} × ${number(scale, 4)} = `, h("b", {}, number(scale * dots[j], 3)), "."),
        line("The scale keeps the scores in a range where softmax is neither flat nor a choice of one."));
    } else if (step === 2) {
      kids.push(line("weight = exp(score) / sum of exp(score) along the row. The sliders show the row; move one to change the attention by hand, "
        + "and the others make room so that the row sums to one."), rowOf(last),
      line(`Scores of the row: ${dots.map((dot) => number(scale * dot, 2)).join(", ")}.`));
      if (i !== last.chosen) kids.push(line("Sliders act on the row of the face that attends; choose this face in the tray to edit its row."));
      sliders.forEach((each) => { each.input.disabled = i !== last.chosen; });
    } else if (step === 3) {
      kids.push(line(`${number(row[j], 3)} × ${number(value[other * net.classes + c], 3)} = `,
        h("b", {}, number(row[j] * value[other * net.classes + c], 3)), "."),
      line(`The value is the score for ${classes[c]} that ${names[other]} has alone.`));
    } else {
      const parts = members.map((who, n) => row[n] * value[who * net.classes + c]), cba = parts.reduce((a, b) => a + b, 0), own = value[one * net.classes + c];
      kids.push(line(`${parts.map((part) => number(part, 2)).join(" + ").replaceAll("+ −", "− ")} = `, h("b", {}, `${number(cba, 3)}`), " (CBA)."),
        line(`With its own score: ${number(cba, 3)} + ${number(own, 3)} = `, h("b", {}, number(cba + own, 3)), " (BT)."));
      body.dataset.cba = cba;
      body.dataset.bt = cba + own;
    }
    Object.assign(body.dataset, { dot: dots[j], score: scale * dots[j], weight: row[j], value: value[other * net.classes + c] });
    attribute(body, "data-edited", Boolean(edits[c]));
    return kids;
  }
  const steps = stepper({ label: "one cell of the matrix, step by step", steps: STEPS, draw, more });
  return {
    element: steps.element,
    set(now) {
      const moving = last && steps.step() === 2 && now.i === last.i && now.c === last.c && now.members.length === last.members.length;
      last = now;
      const { members, i, j, c } = now;
      write(steps.title, `${capital(names[members[i]])} attends to ${i === j ? "itself" : names[members[j]]}, class ${classes[c]}.`);
      if (!moving) return steps.show();
      now.members.forEach((who, n) => sliders.get(who)?.set(Math.round(now.row[n] * 100) / 100, number(now.row[n], 3)));
      Object.assign(steps.body.dataset, { weight: now.row[now.j] });
      return undefined;
    },
  };
}

const TASKS = [
  ["Find a batch in which the attending face is read as another class than alone.",
    ({ scores }) => argmax(scores.bt) !== argmax(scores.alone), "The other images of the batch decided it."],
  ["Move at least half of the weight of one row by hand without changing what the face is read as.",
    ({ shift, scores, before }) => shift >= 0.5 && argmax(scores.bt) === argmax(before.bt),
    "A large change of attention may change nothing: attention is not an explanation of the decision."],
  ["Build a batch of at least three faces in which all others show one class, not that of the attending face.",
    ({ others, own }) => others.length > 1 && new Set(others).size === 1 && others[0] !== own,
    "Such a batch moves the scores most: they depend on who else is in it."],
];

async function render({ model, el, alone }) {
  const data = model.get("data"), { classes, colours, presets, scales } = data, toy = data.own && await openToy(data.own);
  const names = [...data.names, ...(toy ? ["your face"] : [])], labels = [...data.labels, ...(toy ? [-1] : [])];
  const [, height, width] = data.faces.shape, count = names.length, mine = toy ? count - 1 : -1;
  const [pixels, query, key, value] = (await Promise.all([data.faces, data.query, data.key, data.value].map(unpack))).map((part) => {
    if (!toy) return part;
    const more = new part.constructor(part.length + part.length / (count - 1)); // a place for the reader's face
    more.set(part);
    return more;
  });
  const net = { query, key, value, classes: classes.length, width: data.query.shape[2] };
  let joined = false; // whether the reader's face is there
  const face = () => h("canvas", { "aria-hidden": "true", width, height });
  const draw = (canvas, i) => paint(canvas, pixels.subarray(i * height * width, (i + 1) * height * width), width, height);
  const addresses = Array.from({ length: count }, (_, i) => draw(face(), i).toDataURL());
  let edits = {}; // of the attending row: class -> {face: weight}
  const put = (members, attending = model.get("attending")) => {
    edits = {};
    change(model, { members, attending: members.includes(attending) ? attending : members[0] });
  };
  const toggle = (i) => {
    const members = model.get("members");
    if (!members.includes(i)) put([...members, i].sort((a, b) => a - b));
    else if (members.length > 1) put(members.filter((other) => other !== i));
    else say("A batch needs at least one face.");
  };
  const group = unique("attends");
  const cards = names.map((name, i) => faceCard({ name, colour: colours[labels[i]] || "var(--accent)", canvas: draw(face(), i), group,
    ontoggle: () => toggle(i), onchoose: () => { edits = {}; change(model, { attending: i }); matrix.go(model.get("members").indexOf(i), matrix.place()[1]); } }));
  const all = () => labels.map((_, i) => i).filter((i) => i !== mine || joined);
  if (toy) cards[mine].element.hidden = true;
  const own = toy && ownFace({ side: width, alone, say: (text) => say(text), onface: (gray) => {
    const parts = toyOf(gray, width, toy);
    pixels.set(gray, mine * gray.length);
    for (const [name, part] of Object.entries(parts)) net[name].set(part, mine * part.length);
    const canvas = cards[mine].element.querySelector("canvas");
    addresses[mine] = draw(canvas, mine).toDataURL();
    drawn.fill(-1);
    cards[mine].element.hidden = false;
    joined = true;
    const members = model.get("members");
    if (members.includes(mine)) refresh();
    else put([...members, mine], mine);
  } });
  const given = presets.map(([name]) => name);
  const starts = [...presets, ...[["everyone", all], ["alone", () => [model.get("attending")]]].filter(([name]) => !given.includes(name))];
  const small = classes.map(() => h("canvas", { class: "fer-small", "aria-hidden": "true", width: 8, height: 8 }));
  const choose = pills({ label: "class (one head each)", options: classes, colours, marks: small, onchange: (c) => change(model, { cls: c }) });
  const scaling = pills({ label: "scores divided by", options: scales.map(([text]) => text), onchange: (i) => change(model, { scale: scales[i][1] }) });
  const reading = h("p", {}), pair = [face(), face()];
  const matrix = matrixPanel(count, (i) => addresses[i], () => { refresh(); say(reading.textContent); });
  const beams = linesPanel((i) => addresses[i], (i) => names[i]);
  const edit = (who, weight) => {
    const c = model.get("cls");
    edits = { ...edits, [c]: { ...edits[c], [who]: weight } };
    refresh();
  };
  const everywhere = button("the same row for all classes", () => {
    const row = edits[model.get("cls")];
    if (row) { edits = Object.fromEntries(classes.map((_, c) => [c, row])); refresh(); }
  });
  const undo = button("attention as computed", () => { edits = {}; refresh(); });
  const cell = cellPanel({ names, classes }, net, edit, everywhere, undo);
  const legend = h("p", { class: "fer-key" }, h("span", {}, "0"), h("i", { "aria-hidden": "true" }), h("span", { class: "fer-number" }));
  const rows = classes.map((name, c) => {
    const bars = WAYS.map(() => bar({ colour: colours[c] }));
    return { bars, element: h("div", { role: "row", class: "fer-row" },
      h("span", { role: "rowheader", class: "fer-name" }, h("i", { class: "fer-dot", style: `--colour:${colours[c]}` }), name),
      bars.map((b) => h("span", { role: "cell" }, b.element))) };
  });
  const table = h("div", { class: "fer-table", role: "table", "aria-label": "class probabilities of the attending face" },
    h("div", { role: "row", class: "fer-row fer-head" }, ["class", ...WAYS.map(([, text]) => text)].map((text) =>
      h("span", { role: "columnheader" }, text))), rows.map((row) => row.element));
  const verdict = h("p", { class: "fer-verdict" }), tally = h("p", { class: "fer-tally" });
  const tasks = taskList(TASKS), { element: said, say } = announcer();
  el.append(figure("batch", "Explore batch attention: put faces into the batch, choose which one attends, and see to whom",
    h("div", { class: "fer-controls", role: "group", "aria-label": "batches to start from" }, h("span", { class: "fer-legend" }, "batch"),
      starts.map(([name, members]) => button(name, () => put(typeof members === "function" ? members() : members))),
      resetButton(model, ["members", "attending", "cls", "scale"], () => { edits = {}; })),
    h("p", { class: "fer-legend" }, "Press a face to put it into the batch or take it out; the round button below it makes it the face that attends. ",
      "Bars: its attention weights."),
    h("div", { class: "fer-tray", role: "list", "aria-label": "faces" }, cards.map((c) => c.element)), own ? own.element : null,
    h("div", { class: "fer-controls fer-heads" }, choose.element),
    h("div", { class: "fer-controls" }, scaling.element),
    h("div", { class: "fer-two" },
      h("div", {}, h("p", { class: "fer-legend" }, "rows attend to columns; press a cell"), matrix.svg, legend,
        h("div", { class: "fer-pair" }, pair, reading)),
      h("div", {}, table, verdict, tally, beams.svg)),
    cell.element, tasks.element, said));

  const drawn = [-1, -1];
  function refresh() {
    const members = model.get("members").filter((i) => i !== mine || joined), attending = model.get("attending"), c = model.get("cls"), scale = model.get("scale");
    const chosen = members.indexOf(attending), of = (who, k) => weightsOf(net, members, who, k, scale, who === attending ? edits : null);
    const grid = members.map((who) => of(who, c)), top = Math.max(...grid.flat()), weights = grid[chosen];
    cards.forEach((card, i) => card.set(members.includes(i), i === attending, weights[members.indexOf(i)], Math.max(...weights)));
    choose.set(c);
    small.forEach((canvas, k) => {
      const shares = members.flatMap((who) => of(who, k)), most = Math.max(...shares);
      paint(canvas, Uint8ClampedArray.from(shares.flatMap((v) => viridis(v / most))), members.length, members.length, 3);
    });
    scaling.set(scales.findIndex(([, other]) => Math.abs(other - scale) < 1e-9));
    matrix.set(members, grid, chosen, top);
    write(legend.lastChild, number(top));
    const [i, j] = matrix.place(), pairOf = [members[i], members[j]];
    pairOf.forEach((who, n) => { if (drawn[n] !== who) { draw(pair[n], who); drawn[n] = who; } });
    write(reading, `${capital(names[pairOf[0]])} gives ${i === j ? "itself" : names[pairOf[1]]} the weight ${number(grid[i][j])}.`);
    beams.set(attending, members, weights);
    cell.set({ members, i, j, c, scale, row: grid[i], dots: productsOf(net, members, members[i], c), value, edits: i === chosen ? edits : {}, chosen });
    const scores = scoresOf(net, members, attending, scale, edits), before = scoresOf(net, members, attending, scale), y = labels[attending];
    const shift = moved(weights, weightsOf(net, members, attending, c, scale));
    everywhere.disabled = !edits[c];
    undo.disabled = Object.keys(edits).length === 0;
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
    const best = members[argmax(weights)];
    const batch = members.length > 1 ? `with the batch as ${winners[2]}` : `and its doubled score gives ${winners[2]}`;
    write(verdict, `For ${classes[c]}, ${names[attending]} attends most to ${best === attending ? "itself" : names[best]}` +
      ` (${number(Math.max(...weights))}). Alone it is read as ${winners[0]}, ${batch}.` +
      (shift > 0 ? ` By hand, ${number(shift)} of the weight has moved.` : ""));
    const known = members.filter((m) => labels[m] >= 0), right = WAYS.map(([way]) => known.filter((m) => argmax(scoresOf(net, members, m, scale, m === attending ? edits : null)[way]) === labels[m]).length);
    write(tally, `Right in this batch of ${known.length === members.length ? members.length : `${known.length} labeled faces`}: ${WAYS.map(([, text], w) => `${text} ${right[w]}`).join(", ")}.`);
    const news = tasks.check({ scores, before, shift, own: y, others: known.filter((m) => m !== attending).map((m) => labels[m]) });
    say(news || `${verdict.textContent} ${tally.textContent}`);
  }
  return watch(model, ["members", "attending", "cls", "scale"], refresh);
}
