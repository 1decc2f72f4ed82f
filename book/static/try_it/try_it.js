// The page "Try it": a sample, a picture or the camera; a square around the face; the model's answer.
(() => {
  const { h, button, write } = globalThis.ferUI;
  const { made, picture: pictures, find, read, makeBox, makeView, makeCamera } = globalThis.ferTry;
  const host = document.getElementById("fer-try");
  const { faceSize } = made.model;

  // From here on the browser itself refuses what is not this book's. A book opened as a file has no server that 'self' could mean.
  const here = location.protocol === "file:" ? "file:" : "'self'";
  const policy = [
    `default-src ${here} data: blob:`,
    `script-src ${here} blob: 'wasm-unsafe-eval'`, // onnxruntime-web: a script unpacked from the book, and WebAssembly
    "script-src-attr 'unsafe-inline'", // the theme's buttons for printing and for the full screen
    `style-src ${here} 'unsafe-inline'`, // the theme, MathJax and the bars set styles of their own
    "connect-src 'none'", "object-src 'none'", "base-uri 'none'", `form-action ${here}`,
  ];
  document.head.append(h("meta", { "http-equiv": "Content-Security-Policy", content: policy.join("; ") }));

  const view = makeView(made.model);
  const stage = h("div", { class: "fer-shot" }), screen = h("canvas", { role: "img", "aria-label": "No picture yet" });
  const box = makeBox(stage, (_, done) => { if (done) answer(); else later(); });
  const status = h("p", { class: "fer-status", role: "status", "aria-live": "polite" });
  const faces = h("div", { class: "fer-found" });
  const keys = h("p", { class: "fer-hint", id: "fer-box-keys" },
    "Drag the square, or its corners. With the keyboard: arrows move it, + and − change its size, Shift makes larger steps.");
  stage.append(screen, box.element);
  let shot = null, sample = null, waiting = 0, order = 0, busy = false, again = false;

  const tell = (text, kind = "") => { write(status, text); status.dataset.kind = kind; };

  function show(next) {
    shot = next;
    const fit = Math.min(1, 1280 / Math.max(shot.width, shot.height));
    screen.width = Math.max(1, Math.round(shot.width * fit));
    screen.height = Math.max(1, Math.round(shot.height * fit));
    screen.getContext("2d").drawImage(shot.source, 0, 0, screen.width, screen.height);
    stage.style.setProperty("--ratio", shot.width / shot.height);
    box.over(shot);
  }
  const middle = () => {
    const side = Math.min(shot.width, shot.height);
    return { left: Math.floor((shot.width - side) / 2), top: Math.floor((shot.height - side) / 2), side };
  };

  // One answer at a time; while it is computed the newest square waits.
  async function answer() {
    if (!shot) return;
    if (busy) { again = true; return; }
    busy = true;
    const of = shot, number = order;
    try {
      const face = pictures.frame(of, box.get(), faceSize);
      tell(made.runtime || !globalThis.ferTry.ready ? "Loading the model (some megabytes, from this book) …" : "");
      const found = await read(face);
      globalThis.ferTry.ready = true;
      if (number === order) {
        view.set(face, found, `Computed in this browser in ${found.milliseconds.toFixed(0)} ms.`, sample?.rendered);
        tell(host.dataset.told || "");
        host.dataset.state = "answered";
      }
    } catch (error) {
      if (number === order) missing(error);
    } finally {
      busy = false;
      if (again) { again = false; answer(); }
    }
  }
  const later = () => { waiting ||= requestAnimationFrame(() => { waiting = 0; answer(); }); };

  // Without runtime or model: say so; for a sample show what was computed when the book was built.
  function missing(error) {
    const kept = sample?.answer;
    tell(`Nothing can be computed here: ${error.message}.` + (kept ? " Shown is the answer computed when the book was built."
      : " The samples have answers that were computed when the book was built."), "missing");
    host.dataset.state = "missing";
    if (!kept) { view.clear("No answer: the model could not be loaded."); return; }
    box.set(sample.box, false, false);
    view.set(pictures.frame(shot, sample.box, faceSize), kept, "Computed when the book was built, not now.", sample.rendered);
  }

  // Where there is no face there is no answer, until the reader places the square.
  function faceless() {
    order += 1; // an answer that is still being computed is not shown
    again = false;
    host.dataset.state = "faceless";
    tell(host.dataset.told);
    view.clear("No face was found, so none was read.");
  }

  // No picture: nothing of the last one is left.
  function blank() {
    shot = null;
    again = false;
    delete host.dataset.found;
    screen.getContext("2d").clearRect(0, 0, screen.width, screen.height);
    screen.setAttribute("aria-label", "No picture");
    box.element.hidden = true;
    view.clear("No face has been read.");
  }

  // Look for faces, place the square, answer.
  async function search() {
    if (!shot) return;
    faces.replaceChildren();
    const number = order;
    tell("Looking for a face …");
    await new Promise((go) => setTimeout(go, 30)); // lets the line above appear
    let found = [], absent = "No face was found";
    try {
      found = await find(shot);
    } catch (error) { // no detector: a sample has its square, and any other picture waits for the reader
      if (sample) found = [sample.box];
      absent = `No face can be looked for: ${error.message}`;
    }
    if (number !== order || !shot) return;
    host.dataset.found = JSON.stringify(found);
    if (!found.length) {
      host.dataset.told = `${absent}. Place the square on the face yourself; what the model says of anything else means nothing.`;
      box.set(middle(), false, false);
      faceless();
      return;
    }
    host.dataset.told = found.length === 1 ? "One face was found." : `${found.length} faces were found; choose one.`;
    box.set(found[0], false, false);
    if (found.length > 1) {
      faces.append(...found.map((one, i) => button(`Face ${i + 1}`, () => { view.fresh(); box.set(one, true); })));
    }
    tell(host.dataset.told);
    view.fresh();
    await answer();
  }

  // Which sample is shown, if any.
  function choose(own) {
    sample = own;
    samples.forEach((one, i) => {
      if (own && made.samples[i] === own) one.setAttribute("aria-current", "true");
      else one.removeAttribute("aria-current");
    });
  }

  async function take(file, own) {
    camera.stop();
    mark();
    order += 1;
    const number = order;
    choose(own);
    host.dataset.state = "busy";
    host.dataset.told = "";
    faces.replaceChildren();
    try {
      const next = await (own ? pictures.fromAddress(own.picture) : pictures.open(file));
      if (number !== order) return;
      show(next);
      screen.setAttribute("aria-label", own ? own.alt : `Your picture ${file.name}`);
      await search();
    } catch (error) {
      if (number !== order) return;
      host.dataset.state = "refused";
      tell(error.message, "refused");
      blank();
    }
  }

  // ---- camera: the square follows the face about once a second, until the reader moves it -------------
  let looked = 0, seen = false;
  const camera = makeCamera(async (video) => {
    const source = await createImageBitmap(video);
    if (!camera.on()) return; // stopped in the meantime
    const first = !shot || shot.width !== source.width || !shot.live;
    show({ source, width: source.width, height: source.height, live: true });
    if (first) { box.set(middle(), false, false); screen.setAttribute("aria-label", "The camera's picture"); }
    if (performance.now() - looked > 1000) {
      const found = await find(shot, true).catch(() => []);
      if (!camera.on()) return;
      looked = performance.now();
      seen = found.length > 0;
      host.dataset.found = JSON.stringify(found);
      host.dataset.told = found.length ? "The square follows the face." : "No face is seen. Come closer, or place the square yourself.";
      if (found.length && !held) box.set(found[0], false, false);
    }
    if (seen || held) await answer();
    else faceless();
  });
  let held = false;
  stage.addEventListener("pointerdown", () => { held = true; });
  box.element.addEventListener("keydown", () => { held = true; });

  const eye = button("Use the camera", async () => {
    if (camera.on()) { camera.stop(); mark(); tell("The camera is off. The last picture stays on this page until you leave it."); return; }
    tell("Waiting for the camera …");
    try {
      await camera.start();
      if (!camera.on()) return; // the reader chose a picture instead
      order += 1;
      choose(null);
      [held, looked] = [false, -Infinity];
      faces.replaceChildren();
      view.fresh();
      mark();
    } catch (error) {
      tell(error.message, "refused");
      host.dataset.state = "refused";
    }
  });
  function mark() {
    write(eye, camera.on() ? "Stop the camera" : "Use the camera");
    eye.setAttribute("aria-pressed", String(camera.on()));
  }

  // ---- the page ------------------------------------------------------------------------------------------
  const input = h("input", {
    type: "file", id: "fer-file", accept: "image/*", onchange: () => { if (input.files[0]) take(input.files[0], null); input.value = ""; },
  });
  const samples = made.samples.map((one) => h("button", {
    type: "button", class: "fer-sample", onclick: () => take(null, one),
  }, h("img", { src: one.picture, alt: `Sample: ${one.alt}`, width: 64, height: 64 })));

  host.replaceChildren(
    h("div", { class: "fer-samples", role: "group", "aria-label": "Samples" }, samples),
    h("div", { class: "fer-controls" },
      h("span", { class: "fer-file" }, input, h("label", { class: "fer-button", for: "fer-file" }, "Choose a picture")), eye,
      button("Find the face", () => { held = false; search(); }), button("Whole picture", () => { if (shot) { held = true; box.set(middle(), true); } })),
    status, faces,
    h("div", { class: "fer-desk" }, h("div", {}, stage, keys), view.element));
  for (const event of ["dragover", "drop"]) {
    host.addEventListener(event, (e) => {
      e.preventDefault();
      if (event === "drop" && e.dataTransfer.files[0]) take(e.dataTransfer.files[0], null);
    });
  }
  take(null, made.samples[0]);
})();
