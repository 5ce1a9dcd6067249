// Keys, the time an answer took, and a magnifier that shows the same place in both pictures. The pages work without it.
(() => {
  "use strict";
  const form = document.getElementById("question");
  if (!form) return;
  const pictures = [...form.querySelectorAll(".pictures img")];

  // from when all pictures are seen
  let since = performance.now();
  let loading = pictures.length;
  const loaded = () => { if (--loading === 0) since = performance.now(); };
  for (const picture of pictures) {
    if (picture.complete) loaded();
    else picture.addEventListener("load", loaded, { once: true });
    const frame = document.createElement("div");
    frame.className = "frame";
    picture.replaceWith(frame);
    frame.append(picture);
  }
  let sent = false;
  form.addEventListener("submit", (event) => {
    if (sent) return event.preventDefault(); // one answer, however often the key is pressed
    sent = true;
    form.elements.milliseconds.value = Math.max(0, Math.round(performance.now() - since));
  });
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

  const point = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    form.style.setProperty("--x", `${((event.clientX - box.left) / box.width) * 100}%`);
    form.style.setProperty("--y", `${((event.clientY - box.top) / box.height) * 100}%`);
  };
  for (const frame of form.querySelectorAll(".frame")) {
    frame.addEventListener("pointermove", point);
    frame.addEventListener("click", (event) => { point(event); form.classList.toggle("zoomed"); });
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.key === "z") form.classList.toggle("zoomed");
    for (const button of form.querySelectorAll("button[data-key]")) {
      if (button.dataset.key.split(" ").includes(event.key)) {
        event.preventDefault();
        button.click();
      }
    }
  });
})();
