// What the reader sees of an answer: bars, the face as the model sees it, and where each expression is seen.
(() => {
  const { h, bar, viridis, paint, announcer, capital, write } = globalThis.ferUI;
  const GRID = 6, SIDE = 48;

  // Evidence for one class over the grey face: what is above the middle of all classes' evidence lights up.
  function overlay(canvas, face, map, top) {
    paint(canvas, face, SIDE, SIDE);
    if (!map) return;
    const pen = canvas.getContext("2d"), image = pen.getImageData(0, 0, SIDE, SIDE);
    const at = (r, c) => map[Math.min(GRID - 1, Math.max(0, r)) * GRID + Math.min(GRID - 1, Math.max(0, c))];
    for (let y = 0; y < SIDE; y += 1) {
      for (let x = 0; x < SIDE; x += 1) {
        const v = ((y + 0.5) * GRID) / SIDE - 0.5, u = ((x + 0.5) * GRID) / SIDE - 0.5;
        const r = Math.floor(v), c = Math.floor(u), fy = v - r, fx = u - c;
        const value = (1 - fy) * ((1 - fx) * at(r, c) + fx * at(r, c + 1)) + fy * ((1 - fx) * at(r + 1, c) + fx * at(r + 1, c + 1));
        const share = Math.max(0, value / top), colour = viridis(share), i = 4 * (y * SIDE + x);
        for (let k = 0; k < 3; k += 1) image.data[i + k] = image.data[i + k] * (1 - 0.65 * Math.min(1, share)) + colour[k] * 0.65 * Math.min(1, share);
      }
    }
    pen.putImageData(image, 0, 0);
  }

  function makeView({ classes, colours, unsure }) {
    const said = announcer();
    let face = null, answer = null, shown = 0, own = false;
    const verdict = h("p", { class: "fer-verdict fer-answer" }, "No face has been read yet.");
    const note = h("p", { class: "fer-hint fer-note" });
    const bars = classes.map((name, i) => bar({ colour: colours[i] }));
    bars.forEach((one) => one.blank()); // nothing has been answered yet
    const rows = classes.map((name, i) => h("button", {
      type: "button", class: "fer-expression", "aria-pressed": "false", onclick: () => { own = true; shown = i; draw(); },
    }, h("span", { class: "fer-name" }, h("i", { class: "fer-dot", style: `--colour:${colours[i]}` }), name), bars[i].element));
    const seen = h("canvas", { class: "fer-pixels", width: SIDE, height: SIDE, role: "img", "aria-label": "No face yet" });
    const where = h("canvas", { class: "fer-pixels", width: SIDE, height: SIDE, role: "img", "aria-label": "No face yet" });
    const caption = h("figcaption", {}, "Where it looks");
    const element = h("div", { class: "fer-result", "aria-label": "What the model answers", role: "group" },
      verdict, h("div", { class: "fer-rows" }, rows),
      h("div", { class: "fer-faces" },
        h("figure", {}, seen, h("figcaption", {}, "The face it sees, 48 pixels wide")), h("figure", {}, where, caption)),
      note, said.element);

    function draw() {
      rows.forEach((row, i) => row.setAttribute("aria-pressed", String(answer != null && i === shown)));
      if (!answer || !face) return;
      const top = Math.max(1e-6, ...answer.evidence[shown].map(Math.abs));
      paint(seen, face, SIDE, SIDE);
      seen.setAttribute("aria-label", "The grey face of 48 pixels that the model sees");
      overlay(where, face, answer.evidence[shown], top);
      where.setAttribute("aria-label", `Where the model finds ${classes[shown]} in the face`);
      write(caption, `Where it finds ${classes[shown]}`);
    }

    return {
      element,
      set(nextFace, nextAnswer, text = "", rendered = "") {
        [face, answer] = [nextFace, nextAnswer];
        const best = answer.probabilities.indexOf(Math.max(...answer.probabilities));
        if (!own) shown = best;
        answer.probabilities.forEach((share, i) => bars[i].set(share));
        const share = answer.probabilities[best], percent = `${Math.round(100 * share)} %`;
        const sentence = share < unsure ? `Unsure: perhaps ${classes[best]}, ${percent}` : `${capital(classes[best])}, ${percent}`;
        write(verdict, sentence);
        verdict.classList.toggle("fer-unsure", share < unsure);
        verdict.dataset.answer = JSON.stringify({ probabilities: answer.probabilities });
        const meant = !rendered || (share >= unsure && rendered === classes[best]);
        write(note, meant ? text : `Rendered as ${rendered}; networks trained on FER+ often confuse it with ${classes[best] === rendered
          ? "other expressions" : classes[best]}. ${text}`);
        said.say(`The model answers: ${sentence}.`);
        draw();
      },
      fresh() { own = false; },
      clear(text) {
        [face, answer] = [null, null];
        bars.forEach((one) => one.blank());
        [seen, where].forEach((c) => { c.getContext("2d").clearRect(0, 0, SIDE, SIDE); c.setAttribute("aria-label", "No face yet"); });
        delete verdict.dataset.answer;
        verdict.classList.remove("fer-unsure");
        write(verdict, text);
        write(caption, "Where it looks");
        write(note, "");
        draw();
      },
      say: said.say,
    };
  }

  globalThis.ferTry = { ...globalThis.ferTry, makeView };
})();
