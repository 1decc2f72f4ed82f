// LossExplorer: what a label asks for, what it costs, and which way each loss pulls the scores.

const LOSSES = [
  { name: "cross-entropy", formula: "L = −log p_y" },
  { name: "label smoothing", formula: "L = −Σ_c q_c log p_c,   q = α·label + (1−α)/K", alpha: true },
  { name: "PDLS", formula: "L = −Σ_c q_c log p_c,   q = α·label + (1−α)·prior", alpha: true, prior: true },
  { name: "focal", formula: "L = −(1−p_y)^γ log p_y", gamma: true },
  { name: "F-PDLS", formula: "L = −Σ_c q_c (1−p_c)^γ log p_c,   q = α·label + (1−α)·prior", alpha: true, gamma: true, prior: true },
  { name: "compensated", formula: "L = −Σ_c q_c (1−p_c) K/(K−1) log p_c,   q = α·label + (1−α)·prior", alpha: true, prior: true, fixed: 1 },
];

// "p_c^γ" -> p, sub c, sup γ
const typeset = (text) => text.split(/([_^].)/).map((part) =>
  part[0] === "_" ? h("sub", {}, part[1]) : part[0] === "^" ? h("sup", {}, part[1]) : part);

function targetOf(loss, label, alpha, prior) {
  const keep = loss.alpha ? alpha : 1, classes = prior.length;
  return prior[label].map((share, c) =>
    keep * (c === label ? 1 : 0) + (1 - keep) * (loss.prior ? share : 1 / classes));
}

// The loss and its pull (minus gradient) on every logit. Every loss is -sum q (1 - p)^gamma log p times a factor.
function lossOf(loss, logP, q, gammaChosen) {
  const gamma = loss.fixed ?? (loss.gamma ? gammaChosen : 0), classes = q.length;
  const factor = loss.fixed ? classes / (classes - 1) : 1;
  const p = logP.map(Math.exp);
  const rest = logP.map((value) => Math.max(-Math.expm1(value), gamma > 0 && gamma < 1 ? 2 ** -23 : 0));
  const value = -factor * q.reduce((sum, share, c) => sum + share * rest[c] ** gamma * logP[c], 0);
  const slope = q.map((share, c) => gamma === 0 ? share
    : share * rest[c] ** (gamma - 1) * (rest[c] - gamma * p[c] * logP[c]));
  const total = slope.reduce((sum, g) => sum + g, 0);
  return { value, pull: slope.map((g, c) => factor * (g - p[c] * total)) };
}

// Log-probabilities when the label has probability t and the other classes keep their proportions.
function slide(logits, label, t) {
  const others = logSoftmax(logits.map((z, c) => (c === label ? -1e9 : z)));
  return others.map((value, c) => (c === label ? Math.log(t) : Math.log1p(-t) + value));
}

// The curve: total loss against the probability of the label, cross-entropy beside it.
function curvePanel() {
  const [wide, high, left, low] = [360, 230, 44, 34];
  let top = 5; // the axis grows with the loss of this face, so that it is drawn where it is
  const x = (t) => left + t * (wide - left - 8), y = (v) => high - low - (v / top) * (high - low - 8);
  const lines = { reference: s("path", { class: "fer-reference" }), chosen: s("path", { class: "fer-line" }) };
  const drop = s("path", { class: "fer-drop" }), dot = s("circle", { r: 5.5, class: "fer-point" });
  const note = s("text", { class: "fer-here" }), aside = s("text", { x: x(0.16), y: 18 }, "dashed: cross-entropy"), grid = s("g", {});
  const svg = s("svg", { viewBox: `0 0 ${wide} ${high}`, class: "fer-chart", role: "img" },
    grid, s("text", { x: 10, y: y(top / 2), transform: `rotate(-90 10 ${y(top / 2)})`, "text-anchor": "middle" }, "loss"),
    [0, 0.25, 0.5, 0.75, 1].map((t) => s("text", { x: x(t), y: high - low + 15, "text-anchor": "middle" }, `${t}`)),
    s("text", { x: x(0.5), y: high - 3, "text-anchor": "middle" }, "probability of the label"),
    aside, lines.reference, lines.chosen, drop, dot, note);
  const path = (points) => points.map(([t, v], i) => `${i ? "L" : "M"}${x(t).toFixed(1)} ${y(v).toFixed(1)}`).join("");
  return {
    svg,
    set({ loss, logits, label, q, gamma, value, colour }) {
      top = Math.max(5, Math.ceil(value * 1.05));
      const pace = top > 10 ? Math.ceil(top / 5) : 1;
      grid.replaceChildren(...Array.from({ length: Math.floor(top / pace) + 1 }, (_, i) => i * pace).map((v) =>
        s("g", {}, s("path", { class: "fer-rule", d: `M${left} ${y(v)}H${wide - 8}` }), s("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, `${v}`))));
      const places = Array.from({ length: 161 }, (_, i) => 1 / (1 + Math.exp(7.5 - (15 * i) / 160)));
      const curve = places.map((t) => [t, lossOf(loss, slide(logits, label, t), q, gamma).value]);
      lines.chosen.setAttribute("d", path(curve.filter(([, v]) => v <= top)));
      lines.reference.setAttribute("d", path(places.map((t) => [t, -Math.log(t)]).filter(([, v]) => v <= top)));
      const same = loss.name === "cross-entropy";
      [lines.reference, aside].forEach((part) => part.setAttribute("visibility", same ? "hidden" : "visible"));
      const here = Math.exp(logSoftmax(logits)[label]);
      svg.style.setProperty("--colour", colour);
      dot.setAttribute("cx", x(here));
      dot.setAttribute("cy", y(value));
      drop.setAttribute("d", `M${x(here)} ${y(value)}V${high - low}`);
      note.setAttribute("x", x(here) + (here > 0.6 ? -10 : 10));
      note.setAttribute("y", Math.max(14, y(value) - 9));
      note.setAttribute("text-anchor", here > 0.6 ? "end" : "start");
      note.textContent = `this face: ${number(value)}`;
      svg.setAttribute("aria-label", `Curve of the ${loss.name} loss against the probability of the label; ` +
        `this face lies at ${number(here)}, loss ${number(value)}`);
    },
  };
}

// One class a row: its logit to move, its probability, what the label asks for, and the pull.
function classRow(name, colour, reach, onlogit) {
  const logit = h("input", { type: "range", min: -reach, max: reach, step: 0.1, "aria-label": `logit of ${name}`,
    oninput: () => onlogit(Number(logit.value)) });
  const figure = h("output", { class: "fer-number" });
  const [p, q, pull] = [bar({ colour }), bar({ colour }), bar({ colour, signed: true })];
  const cell = (kind, title, ...kids) => h("span", { role: "cell", class: `fer-${kind}`, "data-title": title }, kids);
  const element = h("div", { role: "row", class: "fer-row" },
    h("span", { role: "rowheader", class: "fer-name" }, h("i", { class: "fer-dot", style: `--colour:${colour}` }), name),
    cell("logit", "logit", logit, figure), cell("p", "p", p.element), cell("q", "q", q.element),
    cell("pull", "pull", pull.element));
  return {
    element, p, q, pull,
    set(z, probability) {
      if (document.activeElement !== logit || Math.abs(Number(logit.value) - z) > 0.06) logit.value = z;
      figure.textContent = number(z, 1);
      logit.setAttribute("aria-valuetext", `${number(z, 1)}, probability ${number(probability)}`);
    },
  };
}

const LOSS_TASKS = [
  ["Make F-PDLS equal to cross-entropy by its two sliders alone.",
    ({ loss, alpha, gamma }) => loss === "F-PDLS" && alpha === 1 && gamma === 0, "With α = 1 and γ = 0 nothing of the prior and nothing of the focus is left."],
  ["Make the pull on the label’s logit negative: the loss then pushes its own label down.", ({ y, pull }) => pull[y] < -0.005,
    "A face that is more certain than the target is pulled back towards the prior."],
  ["Take ten gradient steps in a row.", ({ taken }) => taken >= 10, "The logits move until p comes to rest; for a soft target that is near q."],
];

async function render({ model, el }) {
  const data = model.get("data"), { classes, colours, prior, face } = data;
  const reach = Math.max(8, ...face.map((z) => Math.ceil(Math.abs(z))));
  const select = pills({ label: "loss", options: LOSSES.map((l) => l.name), onchange: (i) => change(model, { loss: LOSSES[i].name }) });
  const label = picker({ label: "the label says", options: classes, onchange: (i) => change(model, { label: i }) });
  const alpha = slider({ label: "α", hint: "the label’s own share", min: 0, max: 1, step: 0.01,
    onchange: (v) => change(model, { alpha: v }) });
  const gamma = slider({ label: "γ", hint: "focus: quiets easy classes", min: 0, max: 5, step: 0.05,
    onchange: (v) => change(model, { gamma: v }) });
  const rows = classes.map((name, c) => classRow(name, colours[c], reach, (z) =>
    change(model, { logits: model.get("logits").map((old, k) => (k === c ? z : old)) })));
  const rival = (y) => argmax(prior[y].map((share, c) => (c === y ? -1 : share)));
  const only = (winner) => classes.map((_, c) => (c === winner ? 6 : 0));
  const faces = [[data.facename, () => face.slice()], ["sure and right", () => only(model.get("label"))],
    ["sure and wrong", () => only(rival(model.get("label")))], ["knows nothing", () => classes.map(() => 0)]];
  const head = h("div", { role: "row", class: "fer-row fer-head" }, ["class", "logit: what the network says", "p: its softmax",
    "q: what the label asks", "pull on the logit"].map((text) => h("span", { role: "columnheader" }, text)));
  const curve = curvePanel(), formula = h("p", { class: "fer-formula" }), verdict = h("p", { class: "fer-verdict" });
  const { element: said, say } = announcer(), tasks = taskList(LOSS_TASKS);
  let taken = 0, pulls = [];
  const step = button("one gradient step", () => {
    taken += 1;
    change(model, { logits: model.get("logits").map((z, c) => clamp(z + pulls[c], -reach, reach)) }); // learning rate 1
  });
  const chosen = (act) => { taken = 0; act(); };
  el.append(figure("loss", "Explore losses: choose a loss, its settings and a face, and see what it costs and where it pulls",
    h("div", { class: "fer-controls" }, select.element),
    h("div", { class: "fer-controls" }, label.element, alpha.element, gamma.element),
    h("div", { class: "fer-controls", role: "group", "aria-label": "faces to start from" }, h("span", { class: "fer-legend" }, "start from"),
      faces.map(([name, logits]) => button(name, () => chosen(() => change(model, { logits: logits() })))), step,
      resetButton(model, ["loss", "label", "alpha", "gamma", "logits"], () => { taken = 0; })),
    h("div", { class: "fer-table", role: "table", "aria-label": "classes" }, head, rows.map((row) => row.element)),
    h("div", { class: "fer-below" }, curve.svg, h("div", {}, formula, verdict)), tasks.element, said));

  const draw = () => {
    const y = model.get("label"), logits = model.get("logits"), settings = [model.get("alpha"), model.get("gamma")];
    const index = Math.max(0, LOSSES.findIndex((l) => l.name === model.get("loss"))), loss = LOSSES[index];
    const logP = logSoftmax(logits), q = targetOf(loss, y, settings[0], prior);
    const { value, pull } = lossOf(loss, logP, q, settings[1]);
    const reachOfPull = Math.max(1, ...pull.map(Math.abs));
    select.set(index);
    label.set(y);
    alpha.set(settings[0], loss.alpha ? number(settings[0]) : "—", Boolean(loss.alpha));
    gamma.set(settings[1], loss.gamma ? number(settings[1]) : "—", Boolean(loss.gamma));
    rows.forEach((row, c) => {
      row.set(logits[c], Math.exp(logP[c]));
      row.p.set(Math.exp(logP[c]));
      row.q.set(q[c]);
      row.pull.set(pull[c], { top: reachOfPull });
      row.element.classList.toggle("fer-label", c === y);
    });
    curve.set({ loss, logits, label: y, q, gamma: settings[1], value, colour: colours[y] });
    formula.replaceChildren(...typeset(loss.formula));
    const down = pull.indexOf(Math.min(...pull)), up = argmax(pull);
    const text = `The ${loss.name} loss of this face is ${number(value, 3)}. It pulls ${classes[up]} up by ${number(pull[up])}` +
      ` and ${classes[down]} down by ${number(-pull[down])}.`;
    verdict.textContent = text;
    verdict.dataset.value = value;
    pulls = pull;
    const news = tasks.check({ loss: loss.name, alpha: settings[0], gamma: settings[1], y, pull, taken });
    say(news || text);
  };
  return watch(model, ["loss", "label", "alpha", "gamma", "logits"], draw);
}
