// ResizerExplorer: two ways to resize one face, side by side under the reader's hand.

const VIEWS = ["left only", "wipe", "right only", "difference"];

// A window of pixels, each as a square: what the stage shows under the lens.
function lensPane(cells) {
  const canvas = h("canvas", { class: "fer-pixels", "aria-hidden": "true" });
  const caption = h("p", { class: "fer-legend" });
  return {
    element: h("div", { class: "fer-pane" }, canvas, caption),
    set(image, x, y, text, span = cells) {
      const { pixels, width, height, channels } = image, out = new Uint8Array(span * span * channels);
      const left = clamp(Math.round(x * width - span / 2), 0, Math.max(0, width - span));
      const upper = clamp(Math.round(y * height - span / 2), 0, Math.max(0, height - span));
      for (let row = 0; row < span; row += 1) {
        const from = ((upper + row) * width + left) * channels;
        out.set(pixels.subarray(from, from + span * channels), row * span * channels);
      }
      paint(canvas, out, span, span, channels);
      caption.textContent = text;
    },
  };
}

// Power at each spatial frequency, two lines; the dotted rule is as fine as the small picture can be.
function spectrumPanel(nyquist) {
  const [wide, high, left, low] = [340, 190, 50, 32];
  const lines = ["fer-leftline", "fer-rightline"].map((name) => s("path", { class: name }));
  const grid = s("g", {}), ends = lines.map(() => s("text", { "text-anchor": "end" }));
  const x = (f) => left + (f / 0.5) * (wide - left - 8);
  const rule = nyquist ? s("g", {}, s("path", { class: "fer-drop", d: `M${x(nyquist)} 6V${high - low}` }),
    s("text", { x: x(nyquist) + 5, y: 14 }, "finest the source holds")) : null;
  const svg = s("svg", { viewBox: `0 0 ${wide} ${high}`, class: "fer-chart", role: "img" }, grid, rule || [],
    [0, 0.1, 0.2, 0.3, 0.4, 0.5].map((f) => s("text", { x: x(f), y: high - low + 15, "text-anchor": "middle" }, `${f}`)),
    s("text", { x: x(0.25), y: high - 3, "text-anchor": "middle" }, "cycles per pixel"), s("text", { x: 8, y: 86, transform: "rotate(-90 8 86)", "text-anchor": "middle" }, "power"), lines, ends);
  return {
    svg,
    set(pair, range, names) {
      const [bottom, top] = range, y = (v) => high - low - ((v - bottom) / (top - bottom)) * (high - low - 10);
      const ticks = Array.from({ length: 9 }, (_, i) => 2 * (i - 4)).filter((v) => v >= bottom && v <= top);
      grid.replaceChildren(...ticks.map((v) => s("g", {}, s("path", { class: "fer-rule", d: `M${left} ${y(v)}H${wide - 8}` }),
        s("text", { x: left - 5, y: y(v) + 4, "text-anchor": "end" }, `10${[...`${v}`].map((d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d] ?? "⁻").join("")}`))));
      pair.forEach((power, n) => lines[n].setAttribute("d", Array.from(power, (v, i) =>
        `${i ? "L" : "M"}${x((0.5 * (i + 0.5)) / power.length).toFixed(1)} ${y(clamp(v, bottom, top)).toFixed(1)}`).join("")));
      svg.setAttribute("aria-label", `Power of ${names[0]} and ${names[1]} at each spatial frequency`);
      svg.dataset.values = JSON.stringify(pair.map((power) => Array.from(power)));
    },
  };
}

const SIZE_TASKS = [
  ["Find two methods that differ by less than 5 gray levels (root mean square).", ({ i, j, rms }) => i !== j && rms < 5,
    "Some rules are nearly the same picture, and yet their spectra can be told apart."],
  ["Put the lens where both pictures have exactly the same gray in its middle.", ({ i, j, same }) => i !== j && same,
    "Smooth skin hardly depends on the rule; edges do."],
  ["Show the difference of the two pictures that differ most, by 70 gray levels somewhere.", ({ view, most }) => view === "difference" && most >= 70,
    "The largest differences lie on edges, where a rule either keeps or smooths them."],
];

async function render({ model, el }) {
  const data = model.get("data"), { methods, faces, nyquist, range } = data;
  const open = async (item) => item && ({ pixels: await unpack(item.image), height: item.image.shape[0],
    width: item.image.shape[1], channels: item.image.shape[2] || 1, spectrum: item.spectrum && await unpack(item.spectrum), error: item.error });
  const pictures = await Promise.all(faces.map(async (face) => ({
    source: await open(face.source), images: await Promise.all(face.images.map(open)) })));
  const { width, height } = pictures[0].images[0];
  const pick = (name, label) => picker({ label, options: methods, onchange: (i) => change(model, { [name]: i }) });
  const who = pills({ label: "face", options: faces.map((f) => f.name), onchange: (i) => change(model, { face: i }) });
  const left = pick("left", "left"), right = pick("right", "right");
  const view = pills({ label: "show", options: VIEWS, onchange: (i) => change(model, { view: VIEWS[i] }) });
  const swap = button("swap", () => change(model, { left: model.get("right"), right: model.get("left") }));

  const canvas = h("canvas", { class: "fer-pixels", "aria-hidden": "true" });
  const handle = h("span", { class: "fer-handle", "aria-hidden": "true" });
  const frame = h("span", { class: "fer-lens", tabindex: 0, role: "application", "aria-label": "lens: arrow keys move it over the face" });
  const names = [h("span", { class: "fer-tag" }), h("span", { class: "fer-tag fer-tag-right" })];
  const stage = h("div", { class: "fer-stage" }, canvas, names, handle, frame);
  const split = slider({ label: "divider", min: 0, max: 1, step: 0.01, onchange: (v) => change(model, { split: v }) });
  const cells = clamp(Math.round(width / 8), 8, 24), panes = [lensPane(cells), lensPane(cells), lensPane(cells)];
  if (!pictures.some((p) => p.source)) panes[2].element.hidden = true;
  const spectrum = spectrumPanel(nyquist), verdict = h("p", { class: "fer-verdict" });
  const key = h("p", { class: "fer-key fer-diff" }, h("span", { class: "fer-number" }), h("i", { "aria-hidden": "true" }), h("span", { class: "fer-number" }));
  const legend = [h("span", { class: "fer-leftname" }), h("span", { class: "fer-rightname" })];
  const { element: said, say } = announcer(), tasks = taskList(SIZE_TASKS);
  let moved = false; // the lens has been put somewhere by the reader
  el.append(figure("resizer", "Compare resizers: choose two, wipe between them, and look at their pixels and spectra",
    faces.length > 1 ? h("div", { class: "fer-controls" }, who.element) : null,
    h("div", { class: "fer-controls" }, left.element, swap, right.element),
    h("div", { class: "fer-controls" }, view.element, resetButton(model, ["face", "left", "right", "view", "split", "lens"])),
    h("div", { class: "fer-stagesgrid" },
      h("div", { class: "fer-stagebox" }, stage, split.element, key),
      h("div", {}, h("p", { class: "fer-legend" }, "under the lens"), h("div", { class: "fer-panes" }, panes.map((p) => p.element))),
      h("div", {}, h("p", { class: "fer-legend fer-lines" }, "power: ", legend), spectrum.svg), verdict), tasks.element, said));

  // The stage: the whole multiple of the picture's pixels that fits, 448 px at most.
  const fit = () => {
    const room = Math.min(448, stage.parentElement.clientWidth || 448);
    stage.style.setProperty("--scale", room >= width ? Math.floor(room / width) : room / width);
  };
  stage.style.setProperty("--w", width);
  stage.style.setProperty("--h", height);
  const where = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map((v) => clamp(v, 0, 1));
  };
  let dragging = false;
  stage.addEventListener("pointerdown", (event) => {
    const [x] = where(event);
    frame.focus({ preventScroll: true });
    event.preventDefault();
    dragging = model.get("view") === "wipe" && Math.abs(x - model.get("split")) < 0.08;
    if (dragging) stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    const [x, y] = where(event);
    moved ||= !dragging;
    change(model, dragging ? { split: x } : { lens: [x, y] });
  });
  const drop = () => { dragging = false; };
  ["pointerup", "pointercancel"].forEach((name) => stage.addEventListener(name, drop));
  arrowKeys(frame, (dx, dy, event) => {
    moved = true;
    const [x, y] = model.get("lens"), pace = event.shiftKey ? 1 : 4;
    change(model, { lens: [clamp(x + (dx * pace) / width, 0, 1), clamp(y + (dy * pace) / height, 0, 1)] });
  });

  // What the stage shows: the left picture, the right one, both at a divider, or right minus left.
  const compose = (a, b, mode, at) => {
    const out = new Uint8Array(width * height * 3);
    const read = (image, i, c) => image.pixels[image.channels === 3 ? 3 * i + c : i];
    let most = 0, sum = 0;
    for (let i = 0; i < width * height; i += 1) for (let c = 0; c < 3; c += 1) {
      const gap = read(b, i, c) - read(a, i, c);
      most = Math.max(most, Math.abs(gap));
      sum += gap * gap;
      out[3 * i + c] = mode === "right only" || (mode === "wipe" && i % width >= at * width) ? read(b, i, c) : read(a, i, c);
    }
    if (mode === "difference") for (let i = 0; i < width * height; i += 1) {
      const gap = [0, 1, 2].reduce((total, c) => total + read(b, i, c) - read(a, i, c), 0) / 3;
      out.set(diverging(gap / Math.max(1, most)), 3 * i);
    }
    paint(canvas, out, width, height, 3);
    return { most, rms: Math.sqrt(sum / (width * height * 3)) };
  };

  const draw = () => {
    const face = pictures[model.get("face")], [i, j] = [model.get("left"), model.get("right")];
    const [a, b] = [face.images[i], face.images[j]], mode = model.get("view"), at = model.get("split");
    const [x, y] = model.get("lens");
    who.set(model.get("face"));
    left.set(i);
    right.set(j);
    view.set(VIEWS.indexOf(mode));
    split.set(at, `${Math.round(at * 100)} %`, mode === "wipe");
    const { most, rms } = compose(a, b, mode, at);
    fit();
    handle.hidden = mode !== "wipe";
    handle.style.left = `${at * 100}%`;
    names[0].textContent = mode === "right only" ? "" : mode === "difference" ? `${methods[j]} minus ${methods[i]}` : methods[i];
    names[1].textContent = mode === "wipe" || mode === "right only" ? methods[j] : "";
    names.forEach((tag) => { tag.hidden = !tag.textContent; });
    const half = cells / 2;
    frame.style.left = `${clamp(x * width - half, 0, width - cells) / width * 100}%`;
    frame.style.top = `${clamp(y * height - half, 0, height - cells) / height * 100}%`;
    frame.style.width = `${(cells / width) * 100}%`;
    frame.style.height = `${(cells / height) * 100}%`;
    panes[0].set(a, x, y, methods[i]);
    panes[1].set(b, x, y, methods[j]);
    if (face.source) panes[2].set(face.source, x, y, "the source", Math.max(2, Math.round(cells * face.source.width / width)));
    key.hidden = mode !== "difference";
    key.firstChild.textContent = `−${most}`;
    key.lastChild.textContent = `+${most}`;
    legend[0].textContent = methods[i];
    legend[1].textContent = methods[j];
    spectrum.set([a.spectrum, b.spectrum], range, [methods[i], methods[j]]);
    const errors = [a, b].map((image, n) => image.error == null ? null : `${methods[n ? j : i]} ${number(image.error, 1)}`).filter(Boolean);
    verdict.textContent = `They differ by ${number(rms, 1)} gray levels (root mean square), ${most} at most.` +
      (errors.length ? ` Distance from the truth: ${errors.join("; ")}.` : "");
    verdict.dataset.value = rms;
    const grey = (image) => image.pixels[(Math.min(height - 1, Math.floor(y * height)) * width + Math.min(width - 1, Math.floor(x * width))) * image.channels];
    const news = tasks.check({ i, j, rms, most, view: mode, same: moved && grey(a) === grey(b) });
    say(news || `${methods[i]} and ${methods[j]}, ${mode}. ${verdict.textContent} Under the lens, column ${Math.round(x * width)}, ` +
      `row ${Math.round(y * height)}: ${grey(a)} and ${grey(b)}.`);
  };
  const observer = new ResizeObserver(fit);
  observer.observe(stage.parentElement);
  const stop = watch(model, ["face", "left", "right", "view", "split", "lens"], draw);
  return () => { observer.disconnect(); stop(); };
}
