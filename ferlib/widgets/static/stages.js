// StagesExplorer: one face on its way through a network, from pixels to logits; each stage as maps, each map to be enlarged.

const STAGE_TASKS = [
  ["Find the first stage whose maps have only 7 × 7 places.", ({ stage, first }) => stage === first,
    "On 49 places nobody recognizes a face any more; what is left of it lies in the channels."],
  ["Enlarge a map of a stage behind the pixels and find the place with the largest value of the whole stage.",
    ({ stage, value, top }) => stage > 0 && Math.abs(value) >= top, "Arrow keys move from place to place; the value stands below the map."],
  ["Run the network on a picture of your own, or on the hard face once more.", ({ computed }) => computed,
    "The same file, computed in this browser."],
];

// onnxruntime-web out of this book, and the network out of this page: {run(gray bytes) -> arrays by name}. Scripts, not
// requests, so that a page that is opened as a file can load them.
async function openRuntime(address, model) {
  globalThis.ferTry = { ...globalThis.ferTry, made: globalThis.ferTry?.made || {} };
  if (typeof WebAssembly !== "object") throw new Error("this browser does not run WebAssembly");
  await new Promise((done, failed) => {
    const element = h("script", { src: address, onload: done, onerror: () => { element.remove(); failed(new Error("the runtime is not in this copy of the book")); } });
    document.head.append(element);
  });
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const inflate = async (text) => new Uint8Array(
    await new Response(new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
  const { runtime } = globalThis.ferTry.made, blob = URL.createObjectURL(new Blob([await inflate(runtime.module)], { type: "text/javascript" }));
  const ort = await import(blob);
  ort.env.wasm.numThreads = 1; // more would need a server that sends special headers
  ort.env.wasm.wasmBinary = (await inflate(runtime.wasm)).buffer;
  delete globalThis.ferTry.made.runtime; // megabytes that have been used
  const session = await ort.InferenceSession.create(await unpack(model), { executionProviders: ["wasm"], logSeverityLevel: 3 });
  return async (gray) => {
    const side = Math.sqrt(gray.length), face = new ort.Tensor("float32", Float32Array.from(gray, (v) => v / 255), [1, 1, side, side]);
    const found = await session.run({ face });
    return Object.fromEntries(session.outputNames.map((name) => [name, found[name].data]));
  };
}

// How a stage's numbers are coloured: pixels gray, numbers of one sign from dark to bright, numbers of both blue and red.
function colouring({ gray }, values) {
  const low = values.reduce((a, b) => Math.min(a, b), Infinity), top = greatest(values);
  if (gray) return (v) => Array(3).fill(Math.round(255 * v));
  return low < 0 ? (v) => diverging(v / top) : (v) => viridis(v / top);
}

async function render({ model, el, alone }) {
  const data = model.get("data"), { classes, colours, stages, outputs } = data, names = Object.keys(outputs);
  const stored = await Promise.all(stages.map((stage) => unpack(stage.values))), logits = Object.values(outputs);
  let values = stored, scores = logits, source = "stored", place = [0, 0], runtime = null;
  const sizeOf = ({ shape: [count, high, wide] }) => ({ count, high, wide, cells: high * wide });
  const channel = (i, c) => { const { cells } = sizeOf(stages[i]); return values[i].subarray(c * cells, (c + 1) * cells); };

  // The stages in a row, each with the channel that varies most.
  const glance = stages.map(() => h("canvas", { class: "fer-stagepic", "aria-hidden": "true", width: 7, height: 7 }));
  const choose = pills({ label: "stage", options: stages.map((stage) => stage.name), marks: glance, onchange: (i) => { place = [0, 0]; change(model, { stage: i, channel: varied(i) }); } });
  function varied(i) {
    const spread = (part) => { const mean = part.reduce((a, b) => a + b, 0) / part.length; return part.reduce((sum, v) => sum + (v - mean) ** 2, 0); };
    return argmax(Array.from({ length: sizeOf(stages[i]).count }, (_, c) => spread(channel(i, c))));
  }
  // All channels of one stage; one is enlarged.
  const tray = h("div", { class: "fer-channels", role: "radiogroup", "aria-label": "channel" });
  let shown = -1, cards = [];
  const nameOf = (i, c) => stages[i].channels?.[c] ?? (sizeOf(stages[i]).count > 1 ? `channel ${c + 1}` : "the picture");
  const fill = (i) => {
    const group = unique("channel");
    cards = Array.from({ length: sizeOf(stages[i]).count }, (_, c) => {
      const input = h("input", { type: "radio", name: group, "aria-label": nameOf(i, c), title: nameOf(i, c), onchange: () => change(model, { channel: c }) });
      const canvas = h("canvas", { "aria-hidden": "true" });
      return { input, canvas, element: h("label", {}, input, canvas) };
    });
    tray.replaceChildren(...cards.map((card) => card.element));
  };
  const zoom = cellMap({ label: "one map, enlarged: arrow keys move from place to place", onmove: (x, y) => { place = [x, y]; draw(); } });
  const about = h("p", { class: "fer-heading" }), words = h("p", { class: "fer-legend" }), reading = h("p", {}), status = h("p", { class: "fer-hint" });
  const rows = classes.map((name, c) => ({ name, bars: names.map(() => bar({ colour: colours[c] })) }));
  const table = h("div", { class: "fer-table", role: "table", "aria-label": "class probabilities of the three outputs" },
    h("div", { role: "row", class: "fer-row fer-head" }, ["class", ...names].map((text) => h("span", { role: "columnheader" }, text))),
    rows.map(({ name, bars }, c) => h("div", { role: "row", class: "fer-row" },
      h("span", { role: "rowheader", class: "fer-name" }, h("i", { class: "fer-dot", style: `--colour:${colours[c]}` }), name),
      bars.map((one) => h("span", { role: "cell" }, one.element)))));
  const verdict = h("p", { class: "fer-verdict" }), { element: said, say } = announcer(), tasks = taskList(alone && data.model ? STAGE_TASKS : STAGE_TASKS.slice(0, 2));

  async function compute(gray, who) {
    write(status, "Loading the runtime (some megabytes, from this book) …");
    try {
      runtime ||= openRuntime(data.runtime, data.model);
      const run = await runtime, from = performance.now(), found = await run(gray);
      values = stages.map((stage) => found[stage.key]);
      scores = names.map((name) => Array.from(found[name]));
      source = who;
      write(status, `Computed in this browser in ${Math.round(performance.now() - from)} ms: ${who}.`);
      shown = -1;
      draw();
    } catch (error) {
      runtime = null;
      write(status, `Nothing could be computed: ${error.message}. The stored stages of the hard face stay.`);
      say(status.textContent);
    }
  }
  const restore = () => { [values, scores, source, place, shown] = [stored, logits, "stored", [0, 0], -1]; write(status, kept); };
  const kept = alone && data.model ? "Stored with the page: the stages of the hard face. Nothing has been loaded yet."
    : "Stored with the page: the stages of the hard face. On the page of the built book the network also runs on your own picture.";
  write(status, kept);
  const own = alone && data.model ? ownFace({ side: sizeOf(stages[0]).wide, alone, say, onface: (gray) => compute(gray, "your picture") }) : null;
  const again = own && button("compute the hard face here", () => compute(Uint8Array.from(stored[0], (v) => Math.round(255 * v)), "the hard face"));

  function draw() {
    const i = model.get("stage"), { count, high, wide } = sizeOf(stages[i]), c = Math.min(model.get("channel"), count - 1);
    choose.set(i);
    if (shown !== i) {
      fill(i);
      stages.forEach((stage, n) => paintValues(glance[n], channel(n, varied(n)), sizeOf(stage).wide, colouring(stage, values[n])));
      const colour = colouring(stages[i], values[i]);
      cards.forEach(({ canvas }, n) => paintValues(canvas, channel(i, n), wide, colour));
      shown = i;
    }
    cards.forEach(({ input }, n) => { input.checked = n === c; });
    place = [Math.min(place[0], wide - 1), Math.min(place[1], high - 1)];
    const value = channel(i, c)[place[1] * wide + place[0]], top = greatest(values[i]);
    zoom.set(channel(i, c), wide, colouring(stages[i], values[i]), place, `${number(value, 3)}`);
    write(about, `${stages[i].name}: ${stages[i].size}`);
    write(words, stages[i].words);
    write(reading, `${capital(nameOf(i, c))}, row ${place[1] + 1}, column ${place[0] + 1}: ${number(value, 3)}. The largest of this stage, in absolute value: ${number(top, 3)}.`);
    reading.dataset.value = value;
    const best = scores.map((one, n) => {
      const p = softmax(one), winner = argmax(p);
      rows.forEach(({ bars }, k) => {
        bars[n].set(p[k]);
        bars[n].element.dataset.logit = one[k];
        bars[n].element.classList.toggle("fer-winner", k === winner);
      });
      return `${names[n]} ${classes[winner]} (${number(p[winner])})`;
    });
    write(verdict, `${source === "your picture" ? "Your picture" : "The hard face"} is read as: ${best.join(", ")}.`);
    const news = tasks.check({ stage: i, first: stages.findIndex((stage) => stage.shape[1] === 7), value, top: top * (1 - 1e-6), computed: source !== "stored" });
    say(news || `${about.textContent}. ${reading.textContent} ${verdict.textContent}`);
  }
  el.append(figure("stages", "Explore the network: choose a stage, a channel and a place, from pixels to logits",
    h("div", { class: "fer-controls fer-heads" }, choose.element, resetButton(model, ["stage", "channel"], restore)),
    about, words,
    h("div", { class: "fer-two" }, h("div", {}, zoom.element, reading), h("div", {}, h("p", { class: "fer-legend" }, "all maps of this stage, one scale; press one to enlarge it"), tray)),
    h("p", { class: "fer-heading" }, "The three outputs"), table, verdict,
    h("div", { class: "fer-ownbox" }, again ? h("div", { class: "fer-controls" }, again) : null, own ? own.element : null, status), tasks.element, said));
  return watch(model, ["stage", "channel"], draw);
}
