// The reader's own picture: read by the browser, cut to a small gray square, kept in this page's memory and sent nowhere.

// Before a picture can be chosen, the page takes the policy of the page "Try it": no script of it opens a connection
// any more. A page with a kernel needs its connections and is left as it is; the picture stays in the browser there, too.
function closePage(alone) {
  if (!alone || document.querySelector("meta[data-fer-policy]")) return;
  const here = location.protocol === "file:" ? "file:" : "'self'";
  const policy = [`default-src ${here} data: blob:`, `script-src ${here} blob: 'wasm-unsafe-eval'`, "script-src-attr 'unsafe-inline'",
    `style-src ${here} 'unsafe-inline'`, "connect-src 'none'", "object-src 'none'", "base-uri 'none'", `form-action ${here}`];
  document.head.append(h("meta", { "http-equiv": "Content-Security-Policy", content: policy.join("; "), "data-fer-policy": true }));
}

// A button for the file, a preview whose square is moved and enlarged, and onface(gray bytes) whenever it rests.
function ownFace({ side, alone, onface, say }) {
  const id = unique("file"), preview = h("canvas", { class: "fer-pixels", "aria-hidden": "true", width: 160, height: 160 });
  const small = document.createElement("canvas"), tell = h("p", { class: "fer-hint" });
  let picture = null, square = { x: 0.5, y: 0.5, size: 1 };
  small.width = small.height = side;
  const stage = h("div", { class: "fer-own", tabindex: 0, role: "application", "aria-label": "your picture: drag it, or use the arrow keys, until the face fills the square" }, preview);
  const zoom = slider({ label: "closer", min: 1, max: 4, step: 0.05, onchange: (value) => { square.size = 1 / value; show(true); } });
  const desk = h("div", { class: "fer-owndesk", hidden: true }, stage, h("div", {}, zoom.element,
    h("p", { class: "fer-hint" }, "Drag the picture until the face, from brows to chin, fills the square.")));
  function show(done) {
    const across = square.size * Math.min(picture.width, picture.height);
    const place = (share, whole) => clamp(share * whole - across / 2, 0, whole - across);
    const from = [place(square.x, picture.width), place(square.y, picture.height), across, across];
    for (const canvas of [preview, small]) {
      const pen = canvas.getContext("2d", { willReadFrequently: true });
      pen.fillStyle = "#fff";
      pen.fillRect(0, 0, canvas.width, canvas.height);
      pen.imageSmoothingQuality = "high";
      pen.drawImage(picture, ...from, 0, 0, canvas.width, canvas.height);
    }
    zoom.set(1 / square.size, `${number(1 / square.size, 1)}×`);
    if (!done) return;
    const { data } = small.getContext("2d").getImageData(0, 0, side, side);
    onface(Uint8Array.from({ length: side * side }, (_, i) => (data[4 * i] * 19595 + data[4 * i + 1] * 38470 + data[4 * i + 2] * 7471 + 32768) >> 16));
  }
  const move = (dx, dy, done) => {
    square = { ...square, x: clamp(square.x + dx, 0, 1), y: clamp(square.y + dy, 0, 1) };
    show(done);
  };
  arrowKeys(stage, (dx, dy) => move(dx * 0.05 * square.size, dy * 0.05 * square.size, true));
  stage.addEventListener("pointerdown", (event) => stage.setPointerCapture(event.pointerId));
  stage.addEventListener("pointermove", (event) => {
    if (!stage.hasPointerCapture(event.pointerId)) return;
    move((-event.movementX / stage.clientWidth) * square.size, (-event.movementY / stage.clientHeight) * square.size, false);
  });
  stage.addEventListener("lostpointercapture", () => show(true));
  const input = h("input", { type: "file", id, accept: "image/*", class: "fer-file",
    onclick: () => closePage(alone),
    onchange: async () => {
      const file = input.files[0];
      input.value = "";
      if (!file) return;
      try {
        picture = await createImageBitmap(file, { imageOrientation: "from-image" });
      } catch {
        const words = `${file.name} is not a picture that this browser can read. PNG, JPEG and WebP work.`;
        write(tell, words);
        say(words);
        return;
      }
      square = { x: 0.5, y: 0.5, size: 1 };
      desk.hidden = false;
      write(tell, promise);
      show(true);
    } });
  const promise = "Your picture is read by this browser, stays in its memory, and is gone when you leave the page. "
    + (alone ? "Before you choose one, the page gives up its connections until you leave it." : "It is not sent to the kernel.");
  write(tell, promise);
  return { element: h("div", { class: "fer-ownbox" }, h("div", { class: "fer-controls" },
    h("span", { class: "fer-filebox" }, input, h("label", { class: "fer-button", for: id }, "choose a picture of your own face"))), tell, desk) };
}
