// SAMExplorer: two ways down one loss surface, step by step: along the gradient here, or along that of the worst point nearby.

const METHODS = ["gradient descent", "SAM", "both"];

// L(w) = -sum over wells of depth * exp(-|w - centre|^2 / width), and its gradient.
const pull = (w, [x, y, depth, width]) => depth * Math.exp(-((w[0] - x) ** 2 + (w[1] - y) ** 2) / width);
const lossAt = (wells, w) => -wells.reduce((sum, well) => sum + pull(w, well), 0);
const slopeAt = (wells, w) => [0, 1].map((i) =>
  wells.reduce((sum, well) => sum + ((2 * (w[i] - well[i])) / well[3]) * pull(w, well), 0));
const add = (a, b, factor = 1) => [a[0] + factor * b[0], a[1] + factor * b[1]];

// Every step: where it stands, the climb, the gradient found up there. Without a ball (rho = 0) it is gradient descent.
function walk(wells, start, rho, lr, steps) {
  const path = [];
  for (let w = start, n = 0; n <= steps; n += 1) {
    const here = slopeAt(wells, w), scale = rho / (Math.hypot(...here) + 1e-12);
    const climb = [here[0] * scale, here[1] * scale], up = rho ? slopeAt(wells, add(w, climb)) : here;
    path.push({ w, here, climb, up, loss: lossAt(wells, w) });
    w = add(w, up, -lr);
  }
  return path;
}

// The worst loss within rho, on rings of points around w.
function worstAround(wells, w, rho) {
  let worst = lossAt(wells, w);
  for (let ring = 1; ring <= 16; ring += 1) for (let k = 0; k < 64; k += 1) {
    const angle = (2 * Math.PI * k) / 64, r = (rho * ring) / 16;
    worst = Math.max(worst, lossAt(wells, [w[0] + r * Math.cos(angle), w[1] + r * Math.sin(angle)]));
  }
  return worst;
}

// The surface as bands of one ink, darker where it is deeper, with a line at every level.
function shade(canvas, wells, [left, right, bottom, top], bands = 18) {
  const wide = 600, high = Math.round((wide * (top - bottom)) / (right - left)), values = new Float64Array(wide * high);
  for (let i = 0; i < values.length; i += 1) {
    values[i] = lossAt(wells, [left + (((i % wide) + 0.5) / wide) * (right - left), top - ((Math.floor(i / wide) + 0.5) / high) * (top - bottom)]);
  }
  const low = values.reduce((a, b) => Math.min(a, b)), reach = values.reduce((a, b) => Math.max(a, b)) - low || 1;
  const band = (i) => Math.min(bands - 1, Math.floor(((values[i] - low) / reach) * bands));
  const image = new ImageData(wide, high);
  for (let i = 0; i < values.length; i += 1) {
    const edge = ((i + 1) % wide && band(i) !== band(i + 1)) || (i + wide < values.length && band(i) !== band(i + wide));
    image.data[4 * i + 3] = 255 * (0.5 * (1 - band(i) / (bands - 1)) + (edge ? 0.16 : 0));
  }
  canvas.width = wide;
  canvas.height = high;
  canvas.getContext("2d").putImageData(image, 0, 0);
  return [low, low + reach];
}

// One row of the number line: a dot at the loss, a bar from it to the worst loss nearby.
function lineRow(name, kind) {
  const dot = h("b", {}), reach = h("i", {}), figure = h("span", { class: "fer-number" });
  const element = h("div", { class: `fer-lossrow fer-${kind}`, role: "listitem" }, h("span", {}, name),
    h("span", { class: "fer-lossline", "aria-hidden": "true" }, reach, dot), figure);
  return {
    element,
    set(loss, worst, [low, high]) {
      const at = (v) => clamp((v - low) / (high - low), 0, 1) * 100;
      dot.style.left = `${at(loss)}%`;
      reach.style.left = `${at(loss)}%`;
      reach.style.width = `${at(worst) - at(loss)}%`;
      figure.textContent = `${number(loss)} to ${number(worst)}`;
      element.setAttribute("aria-label", `${name}: loss ${number(loss)}, worst nearby ${number(worst)}`);
      element.dataset.values = JSON.stringify([loss, worst]);
    },
  };
}

const SAM_TASKS = [
  ["Let SAM end at a lower loss than gradient descent.", ({ sam, gd, n, steps }) => sam && gd && n === steps && sam.loss < gd.loss - 0.05,
    "It depends on the start: where gradient descent is caught in a shallow place, SAM may pass it."],
  ["Find a setting with which both end within 0.05 of each other.", ({ sam, gd, n, steps }) => sam && gd && n === steps && Math.hypot(sam.w[0] - gd.w[0], sam.w[1] - gd.w[1]) < 0.05,
    "With a small radius SAM is gradient descent."],
  ["Walk ten steps one by one and watch the climb.", ({ single }) => single >= 10, "Each step is made with the gradient found at the end of the climb."],
];

const vector = (v) => `(${number(v[0])}, ${number(v[1])})`;

async function render({ model, el }) {
  const { surfaces, view: [left, right, bottom, top], steps, marks } = model.get("data");
  const across = 100 / (right - left), tall = (top - bottom) * across;
  const X = (w) => (w[0] - left) * across, Y = (w) => (top - w[1]) * across;
  const restart = (values) => { pause(); change(model, values); };

  const which = pills({ label: "surface", options: surfaces.map(([name]) => name), onchange: (i) => restart({ surface: i }) });
  const way = pills({ label: "walk by", options: METHODS, onchange: (i) => change(model, { method: METHODS[i] }) });
  const rho = slider({ label: "ρ", hint: "how far SAM looks around", min: 0.01, max: 1, step: 0.01, onchange: (v) => change(model, { rho: v }) });
  const lr = slider({ label: "η", hint: "learning rate", min: 0.01, max: 0.5, step: 0.01, onchange: (v) => change(model, { lr: v }) });
  const time = slider({ label: "step", min: 0, max: steps, step: 1, onchange: (v) => restart({ step: v }) });
  let timer = 0;
  const pause = () => { clearInterval(timer); timer = 0; play.textContent = "play"; };
  const onward = () => {
    change(model, { step: Math.min(steps, model.get("step") + 1) });
    if (model.get("step") >= steps) pause();
  };
  const play = button("play", () => {
    if (timer) return pause();
    if (model.get("step") >= steps) change(model, { step: 0 });
    play.textContent = "pause";
    timer = setInterval(onward, 80);
  });
  let single = 0;
  const one = button("one step", () => {
    pause();
    single += 1;
    if (model.get("step") >= steps) change(model, { step: 0 });
    onward();
  });
  const back = button("back to the start", () => restart({ step: 0 }));

  const canvas = h("canvas", { "aria-hidden": "true" });
  const line = (name) => s("path", { class: name, "vector-effect": "non-scaling-stroke" });
  const ball = s("ellipse", { class: "fer-ball", "vector-effect": "non-scaling-stroke" });
  const climb = line("fer-climb"), slope = line("fer-slope"), next = line("fer-next");
  const trails = ["gd", "sam"].map((kind) => ({ kind, far: line(`fer-far fer-${kind}`), near: line(`fer-near fer-${kind}`),
    dot: s("circle", { r: 1.1, class: `fer-${kind}` }) }));
  const svg = s("svg", { viewBox: `0 0 100 ${tall}`, role: "img",
    "aria-label": "the loss surface from above, with the ways of gradient descent and SAM; the table beside it has the numbers" }, trails.map((t) => [t.far, t.near]).flat(), ball, slope, next, climb, trails.map((t) => t.dot));
  const handle = h("span", { class: "fer-start", tabindex: 0, role: "application", "aria-label": "starting point: arrow keys move it" });
  const stage = h("div", { class: "fer-surface", style: `aspect-ratio: ${right - left} / ${top - bottom}` }, canvas, svg, handle,
    marks.map(([x, y, text]) => h("span", { class: "fer-place", style: `left:${X([x, y])}%;top:${(Y([x, y]) / tall) * 100}%` }, text)));
  const key = (kind, text) => h("span", { class: `fer-key-${kind}` }, h("i", { "aria-hidden": "true" }), text);
  const keys = { gd: key("gd", "gradient descent"), sam: key("sam", "SAM"), ball: key("ball", "all within ρ"),
    climb: key("climb", "climb ε"), slope: key("slope", "downhill up there"), next: key("next", "the step") };
  const rows = { start: lineRow("start", "begin"), gd: lineRow("gradient descent", "gd"), sam: lineRow("SAM", "sam") };
  const ends = [h("span", { class: "fer-number" }), h("span", { class: "fer-number" })];
  const reading = h("p", { class: "fer-reading" }), verdict = h("p", { class: "fer-verdict" });
  const { element: said, say } = announcer(), tasks = taskList(SAM_TASKS);
  el.append(figure("sam", "Explore SAM: move the start, choose radius and learning rate, and walk down a loss surface step by step",
    surfaces.length > 1 ? h("div", { class: "fer-controls" }, which.element) : null,
    h("div", { class: "fer-controls" }, way.element),
    h("div", { class: "fer-controls" }, rho.element, lr.element, time.element),
    h("div", { class: "fer-controls" }, play, one, back, resetButton(model, ["surface", "start", "rho", "lr", "method", "step"], () => pause())),
    h("div", { class: "fer-sambelow" },
      h("div", {}, stage, h("p", { class: "fer-keys" }, Object.values(keys))),
      h("div", {}, h("p", { class: "fer-legend" }, "loss here, and the worst within ρ"),
        h("div", { role: "list", "aria-label": "loss and the worst loss nearby" }, Object.values(rows).map((row) => row.element)),
        h("p", { class: "fer-ends" }, ends[0], "loss", ends[1]), verdict, reading)), tasks.element, said));

  // The start follows a click, a drag of its mark, and the arrow keys.
  const place = (x, y) => change(model, { start: [clamp(x, left, right), clamp(y, bottom, top)].map((v) => Math.round(v * 1000) / 1000) });
  const under = (event) => {
    const box = stage.getBoundingClientRect();
    place(left + ((event.clientX - box.left) / box.width) * (right - left), top - ((event.clientY - box.top) / box.height) * (top - bottom));
  };
  stage.addEventListener("click", under);
  handle.addEventListener("pointerdown", (event) => handle.setPointerCapture(event.pointerId));
  handle.addEventListener("pointermove", (event) => { if (handle.hasPointerCapture(event.pointerId)) under(event); });
  arrowKeys(handle, (dx, dy, event) => {
    const [x, y] = model.get("start"), pace = event.shiftKey ? 0.01 : 0.05;
    place(x + pace * dx, y - pace * dy);
  });

  const trace = (path) => path.map(({ w }, i) => `${i ? "L" : "M"}${X(w).toFixed(3)} ${Y(w).toFixed(3)}`).join("");
  const arrow = (path, from, by) => {
    const to = add(from, by), length = Math.hypot(...by) * across, head = Math.min(1.6, length / 2);
    const angle = Math.atan2(Y(to) - Y(from), X(to) - X(from));
    const wing = (turn) => `L${X(to) - head * Math.cos(angle + turn)} ${Y(to) - head * Math.sin(angle + turn)}`;
    path.setAttribute("d", length < 0.05 ? "" : `M${X(from)} ${Y(from)}L${X(to)} ${Y(to)}${wing(0.5)}M${X(to)} ${Y(to)}${wing(-0.5)}`);
  };
  let drawn = -1, range = [0, 1];
  const draw = () => {
    const surface = model.get("surface"), wells = surfaces[surface][1], start = model.get("start"), n = model.get("step");
    const [radius, rate, method] = ["rho", "lr", "method"].map((name) => model.get(name));
    if (surface !== drawn) range = shade(canvas, wells, [left, right, bottom, top]);
    drawn = surface;
    which.set(surface);
    way.set(METHODS.indexOf(method));
    rho.set(radius);
    lr.set(rate);
    time.set(n, `${n}`);
    handle.style.left = `${X(start)}%`;
    handle.style.top = `${(Y(start) / tall) * 100}%`;
    handle.setAttribute("aria-description", `at ${vector(start)}`);
    ends.forEach((end, i) => { end.textContent = number(range[i]); });
    rows.start.set(lossAt(wells, start), worstAround(wells, start, radius), range);
    const stand = {};
    for (const { kind, far, near, dot } of trails) {
      const shown = method === "both" || (kind === "sam") === (method === "SAM");
      const path = walk(wells, start, kind === "sam" ? radius : 0, rate, steps), { w, loss } = path[n];
      [far, near, dot].forEach((mark) => mark.setAttribute("visibility", shown ? "visible" : "hidden"));
      rows[kind].element.hidden = keys[kind].hidden = !shown;
      far.setAttribute("d", trace(path));
      near.setAttribute("d", trace(path.slice(0, n + 1)));
      near.dataset.values = JSON.stringify(path.map((p) => p.w));
      dot.setAttribute("cx", X(w));
      dot.setAttribute("cy", Y(w));
      const worst = worstAround(wells, w, radius);
      rows[kind].set(loss, worst, range);
      if (shown) stand[kind] = { ...path[n], worst, out: w[0] < left || w[0] > right || w[1] < bottom || w[1] > top };
    }
    const at = stand.sam || stand.gd;
    for (const [name, value] of Object.entries({ cx: X(at.w), cy: Y(at.w), rx: radius * across, ry: radius * across })) ball.setAttribute(name, value);
    arrow(next, at.w, at.up.map((v) => -rate * v));
    arrow(climb, at.w, at.climb);
    const steep = Math.hypot(...at.up), length = stand.sam ? -Math.min(0.3, 0.6 / (steep || 1)) : 0; // drawn longer than the step
    arrow(slope, add(at.w, at.climb), at.up.map((v) => length * v));
    ["climb", "slope"].forEach((name) => { keys[name].hidden = !stand.sam; });
    const tell = (name, p) => `${name} stands at ${vector(p.w)}${p.out ? ", outside the picture" : ""}: loss ${number(p.loss)}, worst nearby ${number(p.worst)}.`;
    verdict.textContent = `After ${n} step${n === 1 ? "" : "s"}${stand.gd ? ` ${tell("gradient descent", stand.gd)}` : ""}${stand.sam ? ` ${tell("SAM", stand.sam)}` : ""}`;
    reading.textContent = stand.sam
      ? `SAM’s next step: the gradient here is ${vector(at.here)}; climb ε = ${vector(at.climb)}; up there it is ${vector(at.up)}; so move by −η times that, ${vector(at.up.map((v) => -rate * v))}.`
      : `The next step: the gradient is ${vector(at.here)}; move by −η times that, ${vector(at.up.map((v) => -rate * v))}.`;
    reading.dataset.values = JSON.stringify({ here: at.here, climb: at.climb, up: at.up });
    const news = tasks.check({ ...stand, n, steps, single });
    say(news || `${verdict.textContent} ${reading.textContent}`);
  };
  const stop = watch(model, ["surface", "start", "rho", "lr", "method", "step"], draw);
  return () => { pause(); stop(); };
}
