// Shared by every explorer: building elements, reading packed arrays, bars, choices, one colour map.

const SVG = "http://www.w3.org/2000/svg";
let counter = 0;
const unique = (word) => `fer-${word}-${(counter += 1)}-${Math.random().toString(36).slice(2, 8)}`;

// h("button", {class: "x", onclick: f, "aria-label": "y"}, "text", child) -> element
function build(element, props, kids) {
  for (const [name, value] of Object.entries(props || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...kids.flat().filter((kid) => kid != null));
  return element;
}
const h = (tag, props, ...kids) => build(document.createElement(tag), props, kids);
const s = (tag, props, ...kids) => build(document.createElementNS(SVG, tag), props, kids);

// What is already so is left alone: browsers lay out anew whatever is touched.
const write = (element, text) => { if (element.textContent !== text) element.textContent = text; };
const attribute = (element, name, value) => { if (element.getAttribute(name) !== `${value}`) element.setAttribute(name, value); };

// ---- numbers -------------------------------------------------------------------------------------

// IEEE half precision, as numpy writes it, to a number.
function half(bits) {
  const exponent = (bits >> 10) & 31, fraction = bits & 1023, sign = bits & 32768 ? -1 : 1;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

// The inverse of ferlib.widgets.codec.pack: {type, shape, data (base64), deflated} -> typed array.
async function unpack(packed) {
  const letters = atob(packed.data);
  let bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i += 1) bytes[i] = letters.charCodeAt(i);
  if (packed.deflated) {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  }
  if (packed.type === "uint8") return bytes;
  if (packed.type === "float32") return new Float32Array(bytes.buffer);
  return Float32Array.from(new Uint16Array(bytes.buffer), half);
}

function logSoftmax(values) {
  const top = Math.max(...values);
  const log = top + Math.log(values.reduce((sum, v) => sum + Math.exp(v - top), 0));
  return Array.from(values, (v) => v - log);
}
const softmax = (values) => logSoftmax(values).map(Math.exp);
const argmax = (values) => values.indexOf(Math.max(...values));
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const number = (value, digits = 2) => {
  const text = Math.abs(value).toFixed(digits);
  return (value < 0 && Number(text) !== 0 ? "−" : "") + text;
};

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

// Viridis at 17 places, straight lines between: [red, green, blue], 0 ... 255.
const VIRIDIS = ("44015448186a472d7b4240863b528b33638d2c728e26828e21918c1fa0882" +
  "8ae803fbc735ec96284d44baddc30d8e219fde725").match(/../g).map((pair) => parseInt(pair, 16));
function viridis(share) {
  const place = clamp(share, 0, 1) * 16, low = Math.min(15, Math.floor(place)), rest = place - low;
  return [0, 1, 2].map((i) => Math.round(VIRIDIS[3 * low + i] * (1 - rest) + VIRIDIS[3 * low + 3 + i] * rest));
}

// Bilinear, between the centres of the cells, as torch's interpolate(align_corners=False).
const axes = new Map();
function axisOf(count, size) { // for each of `count` places the lower cell, the upper one, and the share of the upper
  const name = `${count}/${size}`;
  if (!axes.has(name)) {
    const axis = { low: new Int32Array(count), high: new Int32Array(count), share: new Float64Array(count) };
    for (let i = 0; i < count; i += 1) {
      const place = clamp((i + 0.5) * size / count - 0.5, 0, size - 1);
      axis.low[i] = Math.floor(place);
      axis.high[i] = Math.min(size - 1, axis.low[i] + 1);
      axis.share[i] = place - axis.low[i];
    }
    axes.set(name, axis);
  }
  return axes.get(name);
}
function enlarge(values, width, height, wide, high) {
  const x = axisOf(wide, width), y = axisOf(high, height), out = new Float32Array(wide * high), row = new Float64Array(width);
  for (let i = 0, at = 0; i < high; i += 1) {
    const upper = y.low[i] * width, lower = y.high[i] * width, v = y.share[i];
    for (let c = 0; c < width; c += 1) row[c] = values[upper + c] * (1 - v) + values[lower + c] * v;
    for (let j = 0; j < wide; j += 1, at += 1) out[at] = row[x.low[j]] * (1 - x.share[j]) + row[x.high[j]] * x.share[j];
  }
  return out;
}

// ---- state ---------------------------------------------------------------------------------------

// Draw once now, and once a frame after any of the named values has changed, here or in Python.
function watch(model, names, draw) {
  let waiting = 0;
  const soon = () => { waiting ||= requestAnimationFrame(() => { waiting = 0; draw(); }); };
  names.forEach((name) => model.on(`change:${name}`, soon));
  draw();
  return () => names.forEach((name) => model.off(`change:${name}`, soon));
}
function change(model, values) {
  Object.entries(values).forEach(([name, value]) => model.set(name, value));
  model.save_changes();
}

// What a screen reader is told: the last state, once the reader's hand has come to rest.
function announcer() {
  const element = h("p", { class: "fer-said", "aria-live": "polite", role: "status" });
  let timer = 0;
  const say = (text) => {
    clearTimeout(timer);
    timer = setTimeout(() => { if (element.textContent !== text) element.textContent = text; }, 250);
  };
  return { element, say };
}

// ---- controls ------------------------------------------------------------------------------------

// A labelled slider. set(value, text) moves it without telling anyone.
function slider({ label, hint, min, max, step, onchange }) {
  const id = unique("slider");
  const input = h("input", { type: "range", id, min, max, step, oninput: () => onchange(Number(input.value)) });
  const output = h("output", { for: id, class: "fer-number" });
  const element = h("div", { class: "fer-slider" },
    h("label", { for: id }, label, hint ? h("span", { class: "fer-hint" }, ` ${hint}`) : null), input, output);
  return {
    element, input,
    set(value, text = number(value), usable = true) {
      if (Number(input.value) !== value) input.value = value;
      write(output, text);
      input.disabled = !usable;
      element.classList.toggle("fer-off", !usable);
    },
  };
}

// One of several, as a row of pills: native radio buttons, so arrow keys work.
function pills({ label, options, onchange, colours, marks }) {
  const name = unique("choice");
  const inputs = options.map((_, i) => h("input", { type: "radio", name, onchange: () => onchange(i) }));
  const element = h("fieldset", { class: "fer-pills" }, h("legend", {}, label),
    options.map((text, i) => h("label", {}, inputs[i],
      h("span", {}, colours ? h("i", { class: "fer-dot", style: `--colour:${colours[i]}` }) : null, text,
      marks ? marks[i] : null))));
  return { element, set: (index) => inputs.forEach((input, i) => { input.checked = i === index; }) };
}

// One of many, as a list that opens.
function picker({ label, options, onchange }) {
  const id = unique("picker");
  const select = h("select", { id, onchange: () => onchange(select.selectedIndex) },
    options.map((text) => h("option", {}, text)));
  return {
    element: h("div", { class: "fer-picker" }, h("label", { for: id }, label), select),
    set: (index) => { if (select.selectedIndex !== index) select.selectedIndex = index; },
  };
}

const button = (text, onclick, props = {}) => h("button", { type: "button", class: "fer-button", onclick, ...props }, text);

// ---- marks ---------------------------------------------------------------------------------------

// A piece of a bar, in per cent. A cut is painted anew, a width would be laid out anew.
const cut = (fill, left, width) => { fill.style.clipPath = `inset(0 ${100 - left - width}% 0 ${left}%)`; };

// One bar with its number. Signed bars start in the middle. A tick may mark a second value.
function bar({ colour, signed = false }) {
  const fill = h("i", { style: `--colour:${colour}` }), tick = h("b", { hidden: true });
  const figure = h("span", { class: "fer-number" });
  const element = h("span", { class: `fer-bar${signed ? " fer-signed" : ""}` },
    h("span", { class: "fer-track", "aria-hidden": "true" }, fill, tick), figure);
  return {
    element,
    set(value, { top = 1, digits = 2, mark = null } = {}) {
      const share = clamp(value / top, -1, 1) * (signed ? 50 : 100);
      cut(fill, (signed ? 50 : 0) + Math.min(0, share), Math.abs(share) < 0.25 ? 0 : Math.abs(share));
      tick.hidden = mark == null;
      if (mark != null) tick.style.left = `${clamp(mark / top, 0, 1) * 100}%`;
      write(figure, number(value, digits));
      element.dataset.value = value;
    },
    blank() {
      cut(fill, 0, 0);
      tick.hidden = true;
      write(figure, "—");
      element.dataset.value = "";
    },
  };
}

// Grey or colour pixels on a canvas, pixel for pixel.
function paint(canvas, pixels, width, height, channels = 1) {
  const image = new ImageData(width, height), out = image.data;
  for (let i = 0; i < width * height; i += 1) {
    for (let c = 0; c < 3; c += 1) out[4 * i + c] = pixels[i * channels + (channels === 3 ? c : 0)];
    out[4 * i + 3] = 255;
  }
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// Blue below zero, red above, white at zero: [red, green, blue] of a share in -1 ... 1.
function diverging(share) {
  const far = share < 0 ? [33, 102, 172] : [178, 24, 43], much = clamp(Math.abs(share), 0, 1) ** 0.8;
  return far.map((v) => Math.round(247 + (v - 247) * much));
}

// Numbers as pixels of a canvas, one each, row by row; `colour` gives three bytes for a number, or nothing where none is.
function paintValues(canvas, values, wide, colour) {
  const image = new ImageData(wide, values.length / wide);
  for (let i = 0; i < values.length; i += 1) {
    const bytes = colour(values[i]);
    if (bytes) image.data.set([...bytes, 255], 4 * i);
  }
  Object.assign(canvas, { width: image.width, height: image.height });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
const greatest = (values) => Array.from(values).reduce((top, v) => Math.max(top, Math.abs(v)), 0) || 1;

// A small labelled picture of numbers, the same colours as everywhere: signed, with the largest as its scale.
function heatBox(values, wide, text, top = greatest(values)) {
  const canvas = paintValues(h("canvas", { class: "fer-map", "aria-hidden": "true" }), values, wide, (v) => diverging(v / top));
  canvas.style.aspectRatio = `${wide} / ${values.length / wide}`;
  return h("figure", { class: "fer-mapbox" }, canvas, h("figcaption", {}, text));
}

const ARROWS = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
// Arrow keys on an element: onstep(across, down, event).
function arrowKeys(element, onstep) {
  element.addEventListener("keydown", (event) => {
    if (!ARROWS[event.key]) return;
    event.preventDefault();
    onstep(...ARROWS[event.key], event);
  });
}

// A map whose cells are chosen by pointer or arrow keys: onmove(column, row).
function cellMap({ label, onmove }) {
  const canvas = h("canvas", { class: "fer-pixels", "aria-hidden": "true" }), frame = h("span", { class: "fer-patch", "aria-hidden": "true" });
  const element = h("div", { class: "fer-cellmap", tabindex: 0, role: "application", "aria-label": label }, canvas, frame);
  let size = [1, 1], place = [0, 0];
  const go = (x, y) => {
    const next = [clamp(x, 0, size[0] - 1), clamp(y, 0, size[1] - 1)];
    if (next[0] !== place[0] || next[1] !== place[1]) onmove(...next);
  };
  arrowKeys(element, (dx, dy) => go(place[0] + dx, place[1] + dy));
  element.addEventListener("pointerdown", (event) => {
    const box = canvas.getBoundingClientRect();
    go(Math.floor(((event.clientX - box.left) / box.width) * size[0]), Math.floor(((event.clientY - box.top) / box.height) * size[1]));
  });
  return {
    element,
    set(values, wide, colour, at, text) {
      size = [wide, values.length / wide];
      place = at;
      paintValues(canvas, values, wide, colour);
      Object.assign(frame.style, { width: `${100 / size[0]}%`, height: `${100 / size[1]}%`,
        transform: `translate(${100 * at[0]}%, ${100 * at[1]}%)` });
      element.style.aspectRatio = `${size[0]} / ${size[1]}`;
      attribute(element, "aria-description", text);
    },
  };
}

// ---- parts that teach ----------------------------------------------------------------------------

// A computation in steps, forward and back; draw(step, body) fills the body with what the step shows.
function stepper({ label, steps, draw, more = [] }) {
  let step = 0;
  const title = h("p", { class: "fer-legend" }), body = h("div", { class: "fer-step" });
  const go = (next) => { step = clamp(next, 0, steps.length - 1); show(); };
  const choose = pills({ label: "step", options: steps.map((text, n) => `${n + 1} ${text}`), onchange: go });
  const back = button("◂ back", () => go(step - 1)), next = button("next ▸", () => go(step + 1));
  function show() {
    choose.set(step);
    back.disabled = step === 0;
    next.disabled = step === steps.length - 1;
    body.replaceChildren(...draw(step, body));
  }
  return {
    title, body, show, step: () => step,
    element: h("div", { class: "fer-cell", role: "group", "aria-label": label },
      h("div", { class: "fer-controls" }, choose.element), title, body, h("div", { class: "fer-controls" }, back, next, more)),
  };
}
const line = (...kids) => h("p", { class: "fer-sum" }, kids);

// Things to find out, [text, reached(state), answer] each; one is marked when the state shows it, and stays marked.
function taskList(tasks) {
  const items = tasks.map(([text]) => h("li", {}, h("span", { class: "fer-tick", "aria-hidden": "true" }, "○"), ` ${text}`));
  const done = tasks.map(() => false), count = h("span", { class: "fer-number" });
  const tally = () => write(count, `${done.filter(Boolean).length} of ${tasks.length} done`);
  tally();
  return {
    element: h("details", { class: "fer-tasks" }, h("summary", {}, "Things to find out: ", count), h("ol", {}, items)),
    check(state) {
      let news = "";
      tasks.forEach(([, reached, answer], n) => {
        if (done[n] || !reached(state)) return;
        done[n] = true;
        items[n].classList.add("fer-done");
        items[n].firstChild.textContent = "✓";
        items[n].append(h("span", { class: "fer-found" }, ` Done. ${answer}`));
        news = `Task ${n + 1} done. ${answer}`;
      });
      tally();
      return news;
    },
  };
}

// A button that brings back the state of the beginning.
function resetButton(model, names, also = () => {}) {
  const start = names.map((name) => [name, structuredClone(model.get(name))]);
  return button("reset", () => { also(); change(model, Object.fromEntries(structuredClone(start))); });
}

function figure(name, label, ...kids) {
  return h("div", { class: `fer-widget fer-${name}`, role: "group", "aria-label": label }, kids);
}
