// AttentionExplorer: one face under two maps; whoever is pointed at shows where it attends.

const SIDES = ["left", "right"];
const VIEWS = ["scores", "softmax", "rollout"];
const ASKS = ["patch", "token", "all"];
const STATE = ["face", "left", "right", "asks", "query", "left_view", "right_view", "region", "heat"];
const MAP_TASKS = [
  ["Find an attention map whose brightest place lies in the true region (pointing 1).",
    ({ maps }) => maps.some(({ recorded, score }) => recorded && score?.pointing === 1),
    "One such map is easy to find among many layers, heads and patches; it says little about the others."],
  ["Show two maps of one face that disagree: one points into the region, the other does not.",
    ({ maps }) => maps.length === 2 && maps[0].score?.pointing + maps[1].score?.pointing === 1,
    "Methods and layers disagree on the same face, so one map alone proves nothing."],
  ["Find a map that is worse than chance: AUC below 0.5.", ({ maps }) => maps.some(({ score }) => score?.auc < 0.5),
    "Such a map is brighter outside the region than inside."],
];

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

// All layers and heads at a glance; one is chosen. Rows are layers, columns the mean and then head by head.
function multiples({ layers, heads }, onchange) {
  const group = unique("map"), most = Math.max(...heads);
  const columns = (l) => (heads[l] > 1 ? [null, ...Array.from({ length: heads[l] }, (_, i) => i)] : [null]);
  const word = (head) => (head == null ? "mean of the heads" : `head ${head + 1}`);
  const cells = layers.map((layer, l) => columns(l).map((head) => {
    const canvas = h("canvas", { class: "fer-small", "aria-hidden": "true", width: 7, height: 7 });
    const input = h("input", { type: "radio", name: group, "aria-label": heads[l] > 1 ? `${layer.name}, ${word(head)}` : layer.name,
      title: word(head), onchange: () => onchange({ layer: l, head }) });
    return { head, canvas, input, element: h("label", {}, input, canvas) };
  }));
  const names = most > 1 ? h("div", { class: "fer-multirow fer-legend", "aria-hidden": "true" }, h("span", {}, "head"),
    h("span", {}, "mean"), Array.from({ length: most }, (_, i) => h("span", {}, `${i + 1}`))) : null;
  return {
    element: h("div", { class: "fer-multiples", role: "radiogroup", "aria-label": "layer and head" }, names,
      cells.map((row, l) => h("div", { class: "fer-multirow" }, h("span", {}, layers[l].name), row.map((cell) => cell.element)))),
    set(view, mapAt) {
      cells.forEach((row, layer) => row.forEach(({ head, canvas, input }) => {
        const { values, width } = mapAt({ layer, head, step: "softmax" }), top = greatest(values);
        paintValues(canvas, values, width, (v) => viridis(v / top));
        input.checked = layer === view.layer && head === view.head;
      }));
    },
  };
}

// Layer and head, step and level of one source; only what there is to choose is shown.
function viewControls(source, onchange) {
  const { layers, levels } = source, rows = [];
  const row = (control) => { rows.push(control.element); return control; };
  const glance = layers.length > 1 || source.heads[0] > 1 ? row(multiples(source, onchange)) : null;
  const steps = VIEWS.filter((step) => step !== "rollout" || layers.some((one) => one.rollout));
  const step = row(pills({ label: "show", options: steps, onchange: (i) => onchange({ step: steps[i] }) }));
  const level = levels.length > 1 ? row(pills({ label: "level", options: ["all", ...levels],
    onchange: (i) => onchange({ level: i ? i - 1 : null }) })) : null;
  return {
    element: h("div", { class: "fer-view" }, rows),
    set(view, mapAt) {
      glance?.set(view, mapAt);
      step.set(steps.indexOf(view.step));
      step.element.querySelectorAll("input").forEach((input, i) => { input.disabled = steps[i] === "rollout" && !layers[view.layer].rollout; });
      level?.set(view.level == null ? 0 : view.level + 1);
    },
  };
}

// One face under one map, with the region's outline and a frame around the patch that asks.
function stageOf({ ratio, onplace, onstep }) {
  const face = photo("", ratio), heat = h("canvas", { class: "fer-heat", "aria-hidden": "true" });
  const region = s("svg", { class: "fer-region", "aria-hidden": "true", preserveAspectRatio: "none" }, s("path", {}), s("path", {}));
  const frame = h("span", { class: "fer-patch", "aria-hidden": "true" });
  const links = s("svg", { class: "fer-links", "aria-hidden": "true", viewBox: "0 0 1 1", preserveAspectRatio: "none" });
  const element = h("div", { class: "fer-look", tabindex: 0, role: "application", "aria-label": "face" }, face, heat, region, links, frame);
  const point = (event) => {
    const box = face.getBoundingClientRect();
    onplace([(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map((v) => clamp(v, 0, 1 - 1e-9)), event.type);
  };
  element.addEventListener("pointermove", point);
  element.addEventListener("pointerdown", point);
  arrowKeys(element, (dx, dy) => onstep([dx, dy]));
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
    // From the patch that attends to those it attends to most, as wide as the weight.
    link(place, { values, width, height }) {
      const order = place ? Array.from(values, (v, i) => [v, i]).sort(([a], [b]) => b - a).slice(0, 8) : [];
      const [x, y] = place || [0, 0], top = order.length ? order[0][0] || 1 : 1;
      links.replaceChildren(...order.filter(([v]) => v > 0.1 * top).map(([v, i]) => {
        const to = [((i % width) + 0.5) / width, (Math.floor(i / width) + 0.5) / height];
        const d = `M${x} ${y}Q${(x + to[0]) / 2 + (to[1] - y) / 6} ${(y + to[1]) / 2 - (to[0] - x) / 6} ${to[0]} ${to[1]}`;
        return s("g", { "stroke-width": (1 + (4 * v) / top).toFixed(2) }, s("path", { d }), s("path", { d }));
      }));
    },
    frame(place, side, pinned) {
      frame.classList.toggle("fer-pinned", Boolean(pinned));
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
  const asks = pills({ label: "who attends", options: asked.map((name) => ({ patch: "a patch", token: "class token", all: "all patches" })[name]),
    onchange: (i) => change(model, { asks: asked[i] }) });
  const outlineOn = check("outline the true region", (on) => change(model, { region: on }));
  const strength = slider({ label: "heat over face", min: 0, max: 1, step: 0.05, onchange: (v) => change(model, { heat: v }) });
  const askable = sources.some((source) => source.network || source.layers?.some((one) => one.softmax.codes.shape[2] > 1));

  // The grid that a pointer on one side moves over: its own, or the other side's where it has none.
  const sideOf = (name) => {
    const source = ready.get(model.get(name)), view = model.get(`${name}_view`);
    if (!source || source.size) return 0;
    const block = source.layers[view.layer][view.step] || source.layers[view.layer].softmax;
    return block.shape[2] > 1 ? block.asked : 0;
  };
  const gridOf = (name) => sideOf(name) || sideOf(SIDES.find((other) => other !== name));
  let pinned = false; // a pressed patch stays until another is pressed, or the same once more
  const put = (name, [x, y], how) => {
    const grid = gridOf(name), old = model.get("query");
    if (!grid || (how === "pointermove" && pinned)) return;
    const query = [x, y].map((v) => (clamp(Math.floor(v * grid), 0, grid - 1) + 0.5) / grid);
    const same = model.get("asks") === "patch" && query.every((v, i) => Math.abs(v - old[i]) < 1e-9);
    if (how === "pointerdown") { pinned = !(pinned && same); refresh(); }
    if (!same) change(model, { query, asks: "patch" });
  };
  const usable = (i, view) => { // a view of another source, cut to what this one has
    const source = ready.get(i);
    if (source.size) return view;
    const layer = clamp(view.layer ?? Infinity, 0, source.layers.length - 1);
    return { layer, head: view.head != null && view.head < source.heads[layer] ? view.head : null,
      step: VIEWS.includes(view.step) && (view.step !== "rollout" || source.layers[layer].rollout) ? view.step : "softmax",
      level: view.level != null && view.level < source.levels.length ? view.level : null };
  };

  let edits = noEdits();
  const last = {};
  const panels = SIDES.map((name) => {
    const choose = picker({ label: `${name} map`, options: sources.map((source) => source.name),
      onchange: async (i) => {
        await get(i);
        const last = ready.get(i).size ? 0 : ready.get(i).layers.length - 1;
        change(model, { [`${name}_view`]: usable(i, { ...model.get(`${name}_view`), layer: last }), [name]: i });
      } });
    const stage = stageOf({ ratio, onplace: (at, how) => put(name, at, how), onstep: ([dx, dy]) => {
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
          controls.set(i, source.size ? { element: h("p", { class: "fer-legend" }, "One map for the whole face."), set() {} }
            : viewControls(source, (part) => change(model, { [`${name}_view`]: { ...usable(i, model.get(`${name}_view`)), ...part } })));
        }
        const control = controls.get(i);
        if (views.firstChild !== control.element) views.replaceChildren(control.element);
        source.compute?.(face, edits);
        const now = JSON.stringify([i, view, face, asking, query, source.network ? edits : 0]);
        if (seen !== now) { control.set(view, (part) => mapOf(source, face, { ...view, ...part }, asking, query)); seen = now; }
        if (painted !== face) { stage.face.style.backgroundImage = `url("${pictures[face]}")`; painted = face; }
        const map = mapOf(source, face, view, asking, query), signed = !source.size && view.step === "scores";
        const ends = stage.draw(map, model.get("heat"), signed);
        write(low, number(ends[0]));
        write(high, number(ends[1], Math.abs(ends[1]) < 0.1 ? 3 : 2));
        const grid = sideOf(name), patch = asking === "patch" && grid;
        stage.frame(patch ? query : null, grid, pinned);
        stage.link(patch && !signed ? query : null, map);
        if (regions && traced !== face) { stage.outline(regions[face].path, regions[face].wide, regions[face].high); traced = face; }
        stage.show(regions && model.get("region"));
        attribute(stage.element, "aria-label", `${faces[face]}, ${source.name}${gridOf(name) ? ": arrow keys move the patch that attends" : ""}`);
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
        last[name] = { score, source, view, asking, query, recorded: !source.size };
        return `${source.name}: ${reading.textContent}` + (score ? ` Pointing ${number(score.pointing)}, energy ${number(score.energy)}, AUC ${number(score.auc)}.` : "");
      },
    };
  });
  const note = h("p", { class: "fer-tally" }), { element: said, say } = announcer();
  const live = sources.findIndex((source) => source.network);
  if (live >= 0) await get(live);
  const lab = live >= 0 ? labPanel(ready.get(live), (next) => { edits = next; refresh(); }) : null;
  const tasks = taskList([...(lab ? LAB_TASKS : []), ...(truth ? MAP_TASKS : [])].slice(0, 3));
  const alone = sources.length === 1;
  el.append(figure("attention", "Explore attention: choose a face, two maps, and the patch that attends",
    faces.length > 1 ? who.element : null,
    h("div", { class: "fer-controls" }, askable ? asks.element : null, truth ? outlineOn.element : null, strength.element,
      resetButton(model, STATE, () => { pinned = false; edits = noEdits(); lab?.reset(); })),
    h("div", { class: `fer-sides${alone ? " fer-alone" : ""}` }, panels.slice(0, alone ? 1 : 2).map((panel) => panel.element)),
    note, lab ? lab.element : null, tasks.element, said));

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
    const side = SIDES.find((name) => last[name]?.source.network);
    const done = lab ? lab.set({ face, edits, name: faces[face], ...(side ? last[side] : { view: { layer: 0, head: null }, asking: "token", query: [0.5, 0.5] }) }) : {};
    const news = tasks.check({ ...done, maps: SIDES.slice(0, alone ? 1 : 2).map((name) => last[name]).filter(Boolean) });
    say(news || `${faces[face]}. ${words.join(" ")} ${done.text || ""}`);
  }
  return watch(model, STATE, refresh);
}
