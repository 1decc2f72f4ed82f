// A computed network under the two maps: one cell of its attention step by step, attention changed by hand, and what it predicts.

const LAB_TASKS = [
  ["Cover places until the prediction changes.", ({ changed, edits }) => changed && edits.covered.length > 0,
    "The prediction needed what you covered, or what is left looks like another expression."],
  ["Move at least half of the attention of one block without changing the prediction.", ({ changed, moved }) => !changed && moved >= 0.5,
    "A large change of attention may change nothing: attention is not an explanation of the prediction."],
];

function labPanel(source, onedit) {
  const { network, prefix, levels } = source, side = source.layers[0].softmax.side, cells = side * side;
  const tokens = prefix + Math.max(1, levels.length) * cells;
  const nameOf = (token) => {
    if (token < prefix) return "the class token";
    const cell = (token - prefix) % cells, level = levels[Math.floor((token - prefix) / cells)];
    return `${level ? `${level} ` : ""}row ${Math.floor(cell / side) + 1}, column ${(cell % side) + 1}`;
  };
  let last = null, chosen = null, aim = 0, lastEdit = noEdits();
  const edit = (part) => onedit(lastEdit = { ...last.edits, ...part });

  // The row as a picture: the class token's column in front, then the levels side by side, a blank column between.
  const wide = (prefix ? 2 : 0) + Math.max(1, levels.length) * (side + 1) - 1;
  const tokenAt = (x, y) => {
    if (prefix && x < 2) return 0;
    const column = x - (prefix ? 2 : 0), level = Math.min(Math.floor(column / (side + 1)), Math.max(1, levels.length) - 1);
    return prefix + level * cells + y * side + Math.min(column - level * (side + 1), side - 1);
  };
  const placeOf = (token) => {
    if (token < prefix) return [0, Math.floor(side / 2)];
    const level = Math.floor((token - prefix) / cells), cell = (token - prefix) % cells;
    return [(prefix ? 2 : 0) + level * (side + 1) + (cell % side), Math.floor(cell / side)];
  };
  const grid = cellMap({ label: "the row of weights: class token, then level by level; arrow keys choose the place attended to",
    onmove: (x, y) => { // over a blank column to the next place
      const before = placeOf(aim), step = x > before[0] ? 1 : -1;
      let token = tokenAt(x, y);
      if (token === aim && x !== before[0]) token = tokenAt(clamp(x + step, 0, wide - 1), y);
      chosen = token;
      onedit(lastEdit);
    } });
  const weight = slider({ label: "weight of this place", hint: "the others make room", min: 0, max: 1, step: 0.01,
    onchange: (value) => { const key = `${last.layer}/${last.head}/${last.query}`; edit({ rows: { ...last.edits.rows, [key]: { ...last.edits.rows[key], [aim]: value } } }); } });
  const spots = () => (aim < prefix ? [] : Array.from({ length: Math.max(1, levels.length) }, (_, l) => prefix + l * cells + ((aim - prefix) % cells)));
  const cover = button("cover this place", () => {
    const these = spots(), { covered } = last.edits;
    if (these.length) edit({ covered: covered.includes(these[0]) ? covered.filter((t) => !these.includes(t)) : [...covered, ...these] });
  });
  const whole = (kind, text) => button(text, () => edit({ layers: { ...last.edits.layers, [last.layer]: kind } }));
  const undo = button("attention as computed", () => onedit(lastEdit = noEdits()));
  const edits = h("div", { class: "fer-controls", role: "group", "aria-label": "change the attention" }, cover,
    whole("equal", "all weights of this block equal"), whole("permuted", "permute the weights of this block"), undo);

  const draw = (step, body) => {
    const { at, row, score, layer, head } = last, { q, k, v } = vectorsOf(at, head, last.query, aim);
    const both = q.map((a, e) => a * k[e]), dot = both.reduce((a, b) => a + b, 0), power = 2 ** Math.ceil(Math.log2(q.length) / 2);
    const across = q.length % power ? q.length : power;
    Object.assign(body.dataset, { dot, score, weight: row[aim], layer, head });
    if (step === 0) {
      const top = greatest(q.concat(k));
      return [h("div", { class: "fer-product" }, heatBox(q, across, `query of ${nameOf(last.query)}`, top), h("span", {}, "×"),
        heatBox(k, across, `key of ${nameOf(aim)}`, top), h("span", {}, "="), heatBox(both, across, "product, number by number")),
      line(`The sum over the ${q.length} numbers of this head is q · k = `, h("b", {}, number(dot, 3)), ".")];
    }
    if (step === 1) return [line(`${number(dot, 3)} / √${q.length} = `, h("b", {}, number(score, 3)), ".")];
    if (step === 2) {
      return [line(`exp(${number(score, 2)}) over the sum of exp(score) along the row of ${tokens} tokens is the weight `, h("b", {}, number(row[aim], 4)), "."),
        weight.element];
    }
    if (step === 3) {
      const part = v.map((x) => x * row[aim]);
      return [h("div", { class: "fer-product" }, heatBox(v, across, `value of ${nameOf(aim)}`), h("span", {}, `× ${number(row[aim], 4)} =`),
        heatBox(part, across, "its part of the sum", greatest(v)))];
    }
    const total = row.reduce((sum, share, j) => vectorsOf(at, head, last.query, j).v.map((x, e) => sum[e] + share * x), v.map(() => 0));
    body.dataset.sum = JSON.stringify(total);
    return [h("div", { class: "fer-product" }, heatBox(total, across, `what head ${head + 1} gives ${nameOf(last.query)}`)),
      line("The heads stand side by side, pass a linear layer and are added to the token. What follows, to the prediction, is computed here, too.")];
  };
  const steps = stepper({ label: "one weight of the computed network, step by step", steps: STEPS, draw });
  const bars = network.classes.map((name, c) => bar({ colour: network.colours[c] }));
  const table = h("div", { class: "fer-scores", role: "list", "aria-label": "class probabilities" }, network.classes.map((name, c) =>
    h("div", { role: "listitem" }, h("span", {}, h("i", { class: "fer-dot", style: `--colour:${network.colours[c]}` }), name), bars[c].element)));
  const verdict = h("p", { class: "fer-verdict" });
  return {
    element: h("section", { class: "fer-lab", "aria-label": `${source.name}, computed here` },
      h("p", { class: "fer-heading" }, `${source.name}, computed in this page`),
      h("div", { class: "fer-two" }, h("div", {}, h("p", { class: "fer-legend" }, `one row of weights: class token${levels.length ? `, then ${levels.join(", ")}` : ""}; press a place`),
        grid.element, edits), h("div", {}, table, verdict)), steps.element),
    reset() { chosen = null; lastEdit = noEdits(); },
    set({ face, edits: now, view, asking, query, name }) {
      const layer = Math.min(view.layer, network.depth - 1), head = view.head ?? 0;
      const [x, y] = query.map((v) => clamp(Math.floor(v * side), 0, side - 1));
      const from = asking === "patch" ? prefix + (view.level ?? 0) * cells + y * side + x : 0;
      const result = network.run(face, now), before = network.run(face, noEdits()), at = result.layers[layer];
      const start = (head * tokens + from) * tokens, row = Array.from(at.weights.subarray(start, start + tokens));
      aim = chosen ?? argmax(row);
      last = { edits: now, layer, head, query: from, at, row, score: at.scores[start + aim] };
      const picture = new Float64Array(wide * side).fill(NaN), top = greatest(row);
      for (let i = 0; i < picture.length; i += 1) {
        const [cx, cy] = [i % wide, Math.floor(i / wide)], token = tokenAt(cx, cy), [tx, ty] = placeOf(token);
        if (tx === cx && ty === cy) picture[i] = row[token];
      }
      grid.set(picture, wide, (v) => (Number.isNaN(v) ? null : viridis(v / top)), placeOf(aim), `${nameOf(aim)}: ${number(row[aim], 3)}`);
      weight.set(Math.round(row[aim] * 100) / 100, number(row[aim], 3));
      write(steps.title, `${name}, block ${layer + 1}, head ${head + 1}${view.head == null ? " (the maps above show the mean of the heads)" : ""}: ${nameOf(from)} attends to ${nameOf(aim)}.`);
      if (steps.body.contains(document.activeElement)) steps.body.dataset.weight = row[aim]; // a slider that is being moved stays
      else steps.show();
      write(cover, now.covered.includes(spots()[0]) ? "uncover this place" : "cover this place");
      cover.disabled = aim < prefix;
      const [p, was] = [softmax(result.logits), softmax(before.logits)];
      bars.forEach((one, c) => { one.set(p[c], { mark: was[c] }); one.element.dataset.logit = result.logits[c]; });
      const best = argmax(p), first = argmax(was), moved = Math.max(...result.layers.map((one, l) => movedIn(one.weights, before.layers[l].weights, tokens)));
      const text = `${capital(name)} is read as ${network.classes[best]} (${number(p[best])}); with the attention as computed, as ${network.classes[first]} (${number(was[first])}). `
        + `${Math.round(100 * moved)} % of a block’s attention has moved.`;
      write(verdict, text);
      return { changed: best !== first, moved, edits: now, text };
    },
  };
}
