// AttentionExplorer: one face under two maps; whoever is pointed at shows where it attends.

const SIDES = ["left", "right"];
const STEPS = ["scores", "softmax", "rollout"];
const ASKS = ["patch", "token", "all"];

// A picture as a background: pages restyle their images, in dark mode above all.
const photo = (address, ratio) => h("span", { class: "fer-photo", style: `aspect-ratio: ${ratio}; background-image: url("${address}")` });

// A checkbox that looks like the pills.
function check(label, onchange) {
  const input = h("input", { type: "checkbox", onchange: () => onchange(input.checked) });
  const element = h("div", { class: "fer-pills" }, h("label", {}, input, h("span", {}, label)));
  return { element, set: (on) => { input.checked = on; } };
}

// The faces to choose from, small, as radio buttons.
function faceRow(names, pictures, ratio, onchange) {
  const group = unique("face");
  const inputs = names.map((_, i) => h("input", { type: "radio", name: group, onchange: () => onchange(i) }));
  const element = h("div", { class: "fer-faces", role: "radiogroup", "aria-label": "face" }, names.map((name, i) =>
    h("label", { class: "fer-pick" }, inputs[i], h("span", {}, photo(pictures[i], ratio), name))));
  return { element, set: (index) => inputs.forEach((input, i) => { input.checked = i === index; }) };
}

// Layer, head, step and level of one source; only what there is to choose is shown.
function viewControls(source, heads, onchange) {
  const { layers, levels } = source, rows = [];
  const row = (control) => { rows.push(control.element); return control; };
  const layer = layers.length > 1 ? row(slider({ label: "layer", min: 0, max: layers.length - 1, step: 1,
    onchange: (v) => onchange({ layer: v }) })) : null;
  const head = heads > 1 ? row(pills({ label: "head", options: ["mean", ...Array.from({ length: heads }, (_, i) => `${i + 1}`)],
    onchange: (i) => onchange({ head: i ? i - 1 : null }) })) : null;
  const steps = STEPS.filter((step) => step !== "rollout" || layers.some((one) => one.rollout));
  const step = row(pills({ label: "step", options: steps, onchange: (i) => onchange({ step: steps[i] }) }));
  const level = levels.length > 1 ? row(pills({ label: "level", options: ["all", ...levels],
    onchange: (i) => onchange({ level: i ? i - 1 : null }) })) : null;
  return {
    element: h("div", { class: "fer-view" }, rows),
    set(view) {
      const here = layers[view.layer];
      layer?.set(view.layer, here.name);
      layer?.input.setAttribute("aria-valuetext", here.name);
      head?.set(view.head == null ? 0 : view.head + 1);
      head?.element.querySelectorAll("input").forEach((input, i) => {
        input.disabled = view.step === "rollout" || i > source.heads[view.layer];
      });
      head?.element.classList.toggle("fer-off", view.step === "rollout");
      step.set(steps.indexOf(view.step));
      step.element.querySelectorAll("input").forEach((input, i) => { input.disabled = steps[i] === "rollout" && !here.rollout; });
      level?.set(view.level == null ? 0 : view.level + 1);
    },
  };
}

// One face under one map, with the region's outline and a frame around the patch that asks.
function stageOf({ ratio, onplace, onstep }) {
  const face = photo("", ratio), heat = h("canvas", { class: "fer-heat", "aria-hidden": "true" });
  const region = s("svg", { class: "fer-region", "aria-hidden": "true", preserveAspectRatio: "none" }, s("path", {}), s("path", {}));
  const frame = h("span", { class: "fer-patch", "aria-hidden": "true" });
  const element = h("div", { class: "fer-look", tabindex: 0, role: "application", "aria-label": "face" }, face, heat, region, frame);
  const point = (event) => {
    const box = face.getBoundingClientRect();
    onplace([(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map((v) => clamp(v, 0, 1 - 1e-9)));
  };
  element.addEventListener("pointermove", point);
  element.addEventListener("pointerdown", point);
  const arrows = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
  element.addEventListener("keydown", (event) => {
    if (!arrows[event.key]) return;
    event.preventDefault();
    onstep(arrows[event.key]);
  });
  return {
    element, face,
    // Shares from zero, scores from their lowest: the more, the more colour. Returns what the colours stand for.
    draw({ values, width, height }, strength, signed) {
      const seen = signed ? Array.from(values).filter((v) => v > -Infinity) : values;
      const low = signed ? Math.min(...seen) : 0, high = seen.reduce((top, v) => Math.max(top, v), signed ? low : 0);
      const image = new ImageData(width, height);
      values.forEach((value, i) => {
        const share = value === -Infinity ? 0 : high > low ? (value - low) / (high - low) : 0;
        image.data.set(viridis(share), 4 * i);
        image.data[4 * i + 3] = value === -Infinity ? 0 : Math.round(255 * strength * (0.2 + 0.8 * Math.sqrt(share)));
      });
      if (heat.width !== width || heat.height !== height) Object.assign(heat, { width, height });
      heat.getContext("2d").putImageData(image, 0, 0);
      heat.classList.toggle("fer-pixels", width < 32);
      element.map = { values, width, height };
      return [low, high];
    },
    outline(path, wide, high) {
      region.setAttribute("viewBox", `0 0 ${wide} ${high}`);
      region.childNodes.forEach((line) => line.setAttribute("d", path));
    },
    show(region_) { region.style.visibility = region_ ? "" : "hidden"; },
    frame(place, side) {
      frame.hidden = !place;
      if (!place) return;
      const [x, y] = place.map((v) => clamp(Math.floor(v * side), 0, side - 1));
      frame.style.width = frame.style.height = `${100 / side}%`;
      frame.style.transform = `translate(${100 * x}%, ${100 * y}%)`;
    },
  };
}

// Three scores as bars; the tick is what a map that knows nothing gets.
function scoreRows() {
  const names = [["pointing", "pointing game"], ["energy", "energy inside"], ["auc", "AUC"]];
  const bars = names.map(([key, text]) => ({ key, bar: bar({ colour: "var(--accent)" }), text }));
  const element = h("div", { class: "fer-scores", role: "list", "aria-label": "scores" }, bars.map(({ bar: one, text }) =>
    h("div", { role: "listitem" }, h("span", {}, text), one.element)));
  return {
    element,
    set(score) {
      bars.forEach(({ key, bar: one }) => {
        if (score && !Number.isNaN(score[key])) one.set(score[key], { mark: key === "auc" ? 0.5 : score.area });
        else one.blank();
      });
    },
  };
}

const place = (cell, width) => `row ${Math.floor(cell / width) + 1}, column ${(cell % width) + 1}`;

async function render({ model, el }) {
  const { faces, pictures, ratio, sources, truth } = model.get("data");
  const opened = new Map(); // sources are opened when they are first looked at
  const open = (i) => opened.get(i) || opened.set(i, openSource(sources[i])).get(i);
  const masks = truth && await unpack(truth.inside);
  const ready = new Map();
  const get = async (i) => { if (!ready.has(i)) ready.set(i, await open(i)); };
  await Promise.all(SIDES.map((side) => get(model.get(side))));
  const regions = truth && faces.map((_, i) => {
    const [, high, wide] = truth.inside.shape, inside = masks.subarray(i * high * wide, (i + 1) * high * wide);
    return { inside, wide, high, area: inside.reduce((sum, v) => sum + v, 0), path: outline({ inside, wide, high }) };
  });

  const who = faceRow(faces, pictures, ratio, (i) => change(model, { face: i }));
  const tokens = sources.some((source) => source.prefix);
  const asked = ASKS.filter((name) => name !== "token" || tokens);
  const asks = pills({ label: "who asks", options: asked.map((name) => ({ patch: "a patch", token: "class token", all: "all patches" })[name]),
    onchange: (i) => change(model, { asks: asked[i] }) });
  const outlineOn = check("outline the true region", (on) => change(model, { region: on }));
  const strength = slider({ label: "heat over face", min: 0, max: 1, step: 0.05, onchange: (v) => change(model, { heat: v }) });
  const askable = sources.some((source) => !source.size && source.layers.some((one) => one.softmax.codes.shape[2] > 1));

  // The grid that a pointer on one side moves over: its own, or the other side's where it has none.
  const sideOf = (name) => {
    const source = ready.get(model.get(name)), view = model.get(`${name}_view`);
    if (!source || source.size) return 0;
    const block = source.layers[view.layer][view.step] || source.layers[view.layer].softmax;
    return block.shape[2] > 1 ? block.asked : 0;
  };
  const gridOf = (name) => sideOf(name) || sideOf(SIDES.find((other) => other !== name));
  const put = (name, [x, y]) => {
    const grid = gridOf(name), old = model.get("query");
    if (!grid) return;
    const query = [x, y].map((v) => (clamp(Math.floor(v * grid), 0, grid - 1) + 0.5) / grid);
    if (model.get("asks") !== "patch" || query.some((v, i) => v !== old[i])) change(model, { query, asks: "patch" });
  };
  const usable = (i, view) => { // a view of another source, cut to what this one has
    const source = ready.get(i);
    if (source.size) return view;
    const layer = clamp(view.layer ?? Infinity, 0, source.layers.length - 1);
    return { layer, head: view.head != null && view.head < source.heads[layer] ? view.head : null,
      step: STEPS.includes(view.step) && (view.step !== "rollout" || source.layers[layer].rollout) ? view.step : "softmax",
      level: view.level != null && view.level < source.levels.length ? view.level : null };
  };

  const panels = SIDES.map((name) => {
    const choose = picker({ label: `${name} map`, options: sources.map((source) => source.name),
      onchange: async (i) => {
        await get(i);
        const last = ready.get(i).size ? 0 : ready.get(i).layers.length - 1;
        change(model, { [`${name}_view`]: usable(i, { ...model.get(`${name}_view`), layer: last }), [name]: i });
      } });
    const stage = stageOf({ ratio, onplace: (at) => put(name, at), onstep: ([dx, dy]) => {
      const grid = gridOf(name), [x, y] = model.get("query");
      if (grid) put(name, [clamp(x + dx / grid, 0, 1 - 1e-9), clamp(y + dy / grid, 0, 1 - 1e-9)]);
    } });
    const answer = h("p", { class: "fer-answer" }), reading = h("p", { class: "fer-reading" });
    const low = h("span", { class: "fer-number" }), high = h("span", { class: "fer-number" });
    const key = h("p", { class: "fer-key" }, low, h("i", { "aria-hidden": "true" }), high);
    const views = h("div", {}), scores = scoreRows(), controls = new Map();
    scores.element.hidden = !truth;
    answer.hidden = !sources.some((source) => source.answers);
    const element = h("section", { class: "fer-side", "aria-label": `${name} map` }, choose.element, stage.element, key, views,
      answer, scores.element, reading);
    let painted = -1, traced = -1, seen = "";
    return {
      name, element,
      set() {
        const i = model.get(name), source = ready.get(i), face = model.get("face");
        if (!source) { get(i).then(refresh); return ""; } // Python chose a source that was never opened
        const view = usable(i, model.get(`${name}_view`)), asking = model.get("asks"), query = model.get("query");
        choose.set(i);
        if (!controls.has(i)) {
          controls.set(i, source.size ? { element: h("p", { class: "fer-legend" }, "One map for the face: nobody asks."), set() {} }
            : viewControls(source, Math.max(...source.heads), (part) => change(model, { [`${name}_view`]: { ...usable(i, model.get(`${name}_view`)), ...part } })));
        }
        const control = controls.get(i);
        if (views.firstChild !== control.element) views.replaceChildren(control.element);
        if (seen !== JSON.stringify([i, view])) { control.set(view); seen = JSON.stringify([i, view]); }
        if (painted !== face) { stage.face.style.backgroundImage = `url("${pictures[face]}")`; painted = face; }
        const map = mapOf(source, face, view, asking, query), signed = !source.size && view.step === "scores";
        const ends = stage.draw(map, model.get("heat"), signed);
        write(low, number(ends[0]));
        write(high, number(ends[1], Math.abs(ends[1]) < 0.1 ? 3 : 2));
        const grid = sideOf(name), patch = asking === "patch" && grid;
        stage.frame(patch ? query : null, grid);
        if (regions && traced !== face) { stage.outline(regions[face].path, regions[face].wide, regions[face].high); traced = face; }
        stage.show(regions && model.get("region"));
        attribute(stage.element, "aria-label", `${faces[face]}, ${source.name}${gridOf(name) ? ": arrow keys move the patch that asks" : ""}`);
        write(answer, source.answers ? source.answers[face] : "");
        const score = regions && !signed ? scoreOf(map, regions[face]) : null;
        scores.set(score);
        const peak = argmax(Array.from(map.values)), across = (peak % map.width + 0.5) / map.width, down = Math.floor(peak / map.width + 1e-9);
        const there = map.width <= 32 ? place(peak, map.width)
          : `${Math.round(100 * across)} % across, ${Math.round(100 * (down + 0.5) / map.height)} % down`;
        const asker = patch ? `The patch in ${place(query.map((v) => Math.floor(v * grid)).reduce((x, y) => y * grid + x), grid)}`
          : asking === "all" || !source.prefix ? "The mean patch" : "The class token";
        write(reading, signed ? `${asker} scores ${there} highest: ${number(map.values[peak])}. Scores are no shares yet: they are not scored.`
          : source.size ? `The map is highest at ${there}.` : `${asker} gives most to ${there}: ${number(map.values[peak], 3)}.`
            + (map.token != null ? ` To the class token: ${number(map.token, 3)}.` : ""));
        return `${source.name}: ${reading.textContent}` + (score ? ` Pointing ${number(score.pointing)}, energy ${number(score.energy)}, AUC ${number(score.auc)}.` : "");
      },
    };
  });
  const note = h("p", { class: "fer-tally" }), { element: said, say } = announcer();
  const alone = sources.length === 1;
  el.append(figure("attention", "Explore attention: choose a face, two maps, and the patch that asks",
    faces.length > 1 ? who.element : null,
    h("div", { class: "fer-controls" }, askable ? asks.element : null, truth ? outlineOn.element : null, strength.element),
    h("div", { class: `fer-sides${alone ? " fer-alone" : ""}` }, panels.slice(0, alone ? 1 : 2).map((panel) => panel.element)),
    note, said));

  function refresh() {
    const face = model.get("face");
    who.set(face);
    asks.set(asked.indexOf(model.get("asks")));
    outlineOn.set(model.get("region"));
    strength.set(model.get("heat"), `${Math.round(100 * model.get("heat"))} %`);
    const words = panels.slice(0, alone ? 1 : 2).map((panel) => panel.set());
    if (regions) {
      const share = regions[face].area / regions[face].inside.length;
      write(note, `Outline: ${truth.name}, ${number(share)} of the picture. Ticks: what a map that knows nothing gets.`);
    }
    say(`${faces[face]}. ${words.join(" ")}`);
  }
  return watch(model, ["face", "left", "right", "asks", "query", "left_view", "right_view", "region", "heat"], refresh);
}
