// The camera: asked for when its button is pressed, let go when the reader stops, leaves or chooses a picture.
(() => {
  const WIDTH = 640;

  // onframe(video) some times a second. start() throws a sentence for the reader.
  function makeCamera(onframe) {
    let stream = null, timer = 0, asked = 0;
    const video = document.createElement("video");
    video.muted = true;
    video.playsInline = true;

    function stop() {
      asked += 1;
      clearTimeout(timer);
      if (stream) stream.getTracks().forEach((track) => track.stop());
      stream = video.srcObject = null;
    }
    async function start() {
      stop();
      const mine = asked;
      if (!navigator.mediaDevices) throw new Error("A browser lends its camera only to pages opened from a file, from this machine, or over https.");
      let found;
      try {
        found = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: WIDTH }, audio: false });
      } catch (error) {
        throw new Error(error.name === "NotAllowedError" ? "The camera was not allowed. Choose a picture, or allow it and press the button again."
          : "No camera could be opened. Choose a picture instead.");
      }
      if (mine !== asked) { found.getTracks().forEach((track) => track.stop()); return; }
      stream = found;
      video.srcObject = stream;
      await video.play();
      const next = async () => {
        if (mine !== asked) return;
        try {
          if (video.videoWidth && !document.hidden) await onframe(video);
        } finally {
          if (mine === asked) timer = setTimeout(next, 150);
        }
      };
      next();
    }
    addEventListener("pagehide", stop);
    return { start, stop, on: () => stream != null };
  }

  globalThis.ferTry = { ...globalThis.ferTry, makeCamera };
})();
