// The square around a face: drag it, drag its corners, or use the keys. It tells where it is; it computes nothing.
(() => {
  const { h, clamp } = globalThis.ferUI;
  const SMALLEST = 16; // pixels of the picture

  globalThis.ferTry = {
    ...globalThis.ferTry,
    // stage: the element that shows the picture; onchange(box, done) while it moves and when it rests.
    makeBox(stage, onchange) {
      let box = { left: 0, top: 0, side: 1 }, picture = { width: 1, height: 1 };
      const corners = ["nw", "ne", "sw", "se"].map((name) => h("i", { class: `fer-corner fer-${name}`, "data-corner": name }));
      const element = h("div", {
        class: "fer-box", tabindex: "0", role: "application", hidden: true, "aria-roledescription": "movable square",
        "aria-describedby": "fer-box-keys",
      }, corners);

      function show() {
        const percent = (value, whole) => `${(100 * value) / whole}%`;
        Object.assign(element.style, {
          left: percent(box.left, picture.width), top: percent(box.top, picture.height),
          width: percent(box.side, picture.width), height: percent(box.side, picture.height),
        });
        const [x, y, side] = [box.left, box.top, box.side].map(Math.round);
        element.setAttribute("aria-label", `Face square: ${side} pixels wide, ${x} from the left, ${y} from the top`);
      }
      function set(next, done, tell = true) {
        const side = clamp(next.side, SMALLEST, 2 * Math.max(picture.width, picture.height));
        const within = (place, whole) => clamp(place, -side / 2, whole - side / 2); // its middle stays in the picture
        box = { left: within(next.left, picture.width), top: within(next.top, picture.height), side };
        show();
        if (tell) onchange(box, done);
      }
      const resized = (side) => ({ left: box.left + (box.side - side) / 2, top: box.top + (box.side - side) / 2, side });

      element.addEventListener("pointerdown", (event) => {
        if (event.button) return;
        event.preventDefault();
        element.focus({ preventScroll: true });
        element.setPointerCapture(event.pointerId);
        const from = { x: event.clientX, y: event.clientY, box, corner: event.target.dataset.corner };
        const unit = picture.width / stage.clientWidth;
        const moved = (e) => {
          const dx = (e.clientX - from.x) * unit, dy = (e.clientY - from.y) * unit, old = from.box;
          if (!from.corner) return { ...old, left: old.left + dx, top: old.top + dy };
          const west = from.corner.includes("w"), north = from.corner.includes("n");
          const side = Math.max(SMALLEST, old.side + ((west ? -dx : dx) + (north ? -dy : dy)) / 2);
          return { side, left: west ? old.left + old.side - side : old.left, top: north ? old.top + old.side - side : old.top };
        };
        const move = (e) => set(moved(e), false);
        const end = (e) => {
          element.removeEventListener("pointermove", move);
          set(e.type === "pointerup" ? moved(e) : box, true);
        };
        element.addEventListener("pointermove", move);
        element.addEventListener("lostpointercapture", () => element.removeEventListener("pointermove", move), { once: true });
        element.addEventListener("pointerup", end, { once: true });
      });

      element.addEventListener("keydown", (event) => {
        const step = Math.max(1, Math.round(picture.width / 100)) * (event.shiftKey ? 5 : 1);
        const next = {
          ArrowLeft: () => ({ ...box, left: box.left - step }), ArrowRight: () => ({ ...box, left: box.left + step }),
          ArrowUp: () => ({ ...box, top: box.top - step }), ArrowDown: () => ({ ...box, top: box.top + step }),
          "+": () => resized(box.side + 2 * step), "=": () => resized(box.side + 2 * step), "-": () => resized(box.side - 2 * step),
        }[event.key];
        if (!next || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        set(next(), true);
      });

      return {
        element, set,
        get: () => box,
        over(size) { picture = size; element.hidden = false; },
      };
    },
  };
})();
