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

function figure(name, label, ...kids) {
  return h("div", { class: `fer-widget fer-${name}`, role: "group", "aria-label": label }, kids);
}
