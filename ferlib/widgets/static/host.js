// A page without a kernel: what anywidget would give render() is made from the data in the page.
(async () => {
  const root = document.getElementById(HOST_ID);
  if (!root || root.dataset.ready) return;
  root.dataset.ready = "loading";
  // The page is painted first, with the picture or table that stands here; then, in a free moment, the data is read.
  await new Promise((go) => {
    setTimeout(go, performance.getEntriesByType("paint").length ? 0 : 3000); // a page in a hidden tab is never painted
    new PerformanceObserver(go).observe({ type: "paint", buffered: true });
  });
  await new Promise((go) => (window.requestIdleCallback ? requestIdleCallback(go, { timeout: 500 }) : setTimeout(go)));
  const state = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  const listeners = {};
  const model = {
    get: (name) => state[name],
    set(name, value) {
      if (Object.is(state[name], value)) return;
      state[name] = value;
      (listeners[`change:${name}`] || []).slice().forEach((listener) => listener());
    },
    save_changes() {},
    on(name, listener) { (listeners[name] ||= []).push(listener); },
    off(name, listener) { listeners[name] = (listeners[name] || []).filter((other) => other !== listener); },
  };
  const place = document.createElement("div");
  try {
    await render({ model, el: place, alone: true });
    root.replaceChildren(place);
    root.dataset.ready = "yes";
  } catch (error) {
    root.dataset.ready = "failed"; // the table or picture for readers without scripts stays
    console.error("interactive figure:", error);
  }
})();
