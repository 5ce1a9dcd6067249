// Before and after: the line between them, zoom, and the brush. Listens on the document, as the page replaces its parts.
(() => {
  "use strict";
  const LONGEST = 1024; // pixels of the longer side of the brushed region
  const ZOOMS = [1, 1.5, 2, 3, 4, 6, 8];
  const stageOf = (node) => node.closest?.(".pm-stage");
  const part = (stage, name) => stage.querySelector(`.pm-${name}`);
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  // ---- the line
  function show(stage, percent) {
    percent = clamp(percent, 0, 100);
    stage.style.setProperty("--shown", `${percent}%`);
    const range = part(stage, "compare");
    if (range && Number(range.value) !== percent) range.value = percent;
  }

  // ---- zoom
  const zoomOf = (stage) => Number(stage.dataset.zoom || 1);
  function zoom(stage, factor) {
    const view = part(stage, "window"), before = zoomOf(stage);
    factor = clamp(factor, ZOOMS[0], ZOOMS[ZOOMS.length - 1]);
    const middle = [(view.scrollLeft + view.clientWidth / 2) / before, (view.scrollTop + view.clientHeight / 2) / before];
    stage.dataset.zoom = factor;
    stage.style.setProperty("--zoom", factor);
    stage.classList.toggle("pm-zoomed", factor > 1);
    part(stage, "zoom").textContent = factor === 1 ? "fit" : `${Math.round(factor * 100)} %`;
    view.scrollTo(middle[0] * factor - view.clientWidth / 2, middle[1] * factor - view.clientHeight / 2);
  }
  const nextZoom = (stage, up) => up
    ? ZOOMS.find((one) => one > zoomOf(stage)) || zoomOf(stage)
    : [...ZOOMS].reverse().find((one) => one < zoomOf(stage)) || 1;

  // Photographs that are higher than the window are made narrower, so that "fit" shows the whole
  function fit(stage) {
    const most = window.innerHeight * (window.innerWidth <= 640 ? 0.6 : 0.7);
    const wide = part(stage, "window").clientWidth;
    const width = Math.min(wide, (most * stage.dataset.width) / stage.dataset.height);
    if (width > 0) stage.style.setProperty("--fit", `${Math.floor(width)}px`);
  }

  // ---- the brush
  const strokes = new WeakMap(); // canvas -> where the brush is
  function canvasOf(stage) {
    const canvas = part(stage, "canvas");
    if (!canvas.dataset.ready) {
      const [w, h] = [Number(stage.dataset.width), Number(stage.dataset.height)];
      const scale = Math.min(1, LONGEST / Math.max(w, h));
      canvas.width = Math.max(Math.round(w * scale), 1);
      canvas.height = Math.max(Math.round(h * scale), 1);
      canvas.dataset.ready = "yes";
    }
    return canvas;
  }
  function paint(stage, from, to) {
    const canvas = canvasOf(stage), pen = canvas.getContext("2d");
    pen.strokeStyle = pen.fillStyle = "#ff4d00";
    pen.lineCap = pen.lineJoin = "round";
    pen.lineWidth = (Number(part(stage, "size").value) / 100) * Math.max(canvas.width, canvas.height);
    pen.beginPath();
    pen.moveTo(from[0], from[1]);
    pen.lineTo(to[0] + 0.01, to[1]);
    pen.stroke();
  }
  function report(stage, empty) {
    const field = document.querySelector("#pm-mask textarea, #pm-mask input");
    if (!field) return;
    field.value = empty ? "" : canvasOf(stage).toDataURL("image/png");
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }
  function place(canvas, event) {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
  }
  function brush(stage, on) {
    stage.classList.toggle("pm-on", on);
    part(stage, "brush").setAttribute("aria-pressed", on);
    const canvas = canvasOf(stage);
    canvas.tabIndex = on ? 0 : -1;
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(".pm-tools button");
    if (!button) return;
    const stage = stageOf(button);
    if (button.matches(".pm-in")) zoom(stage, nextZoom(stage, true));
    if (button.matches(".pm-out")) zoom(stage, nextZoom(stage, false));
    if (button.matches(".pm-fit")) zoom(stage, 1);
    if (button.matches(".pm-brush")) brush(stage, button.getAttribute("aria-pressed") !== "true");
    if (button.matches(".pm-clear")) {
      const canvas = canvasOf(stage);
      canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
      report(stage, true);
    }
  });

  document.addEventListener("input", (event) => {
    if (event.target.matches?.(".pm-compare")) show(stageOf(event.target), Number(event.target.value));
  });

  let drag = null;
  document.addEventListener("pointerdown", (event) => {
    const pictures = event.target.closest?.(".pm-pictures");
    if (!pictures || event.button !== 0) return;
    const stage = stageOf(pictures);
    if (stage.classList.contains("pm-on")) {
      const canvas = canvasOf(stage), at = place(canvas, event);
      drag = { kind: "brush", stage, at };
      paint(stage, at, at);
      event.preventDefault();
    } else if (zoomOf(stage) > 1) {
      const view = part(stage, "window");
      drag = { kind: "move", view, x: event.clientX + view.scrollLeft, y: event.clientY + view.scrollTop };
      event.preventDefault();
    } else if (stage.classList.contains("pm-both")) {
      drag = { kind: "line", stage, pictures };
      slide(event);
    }
  });
  function slide(event) {
    const box = drag.pictures.getBoundingClientRect();
    show(drag.stage, ((event.clientX - box.left) / box.width) * 100);
  }
  document.addEventListener("pointermove", (event) => {
    if (!drag) return;
    if (drag.kind === "line") slide(event);
    if (drag.kind === "move") drag.view.scrollTo(drag.x - event.clientX, drag.y - event.clientY);
    if (drag.kind === "brush") {
      const at = place(canvasOf(drag.stage), event);
      paint(drag.stage, drag.at, at);
      drag.at = at;
    }
  });
  for (const name of ["pointerup", "pointercancel"]) {
    document.addEventListener(name, () => {
      if (drag?.kind === "brush") report(drag.stage, false);
      drag = null;
    });
  }

  document.addEventListener("keydown", (event) => {
    if (event.target.matches?.(".pm-window")) {
      const stage = stageOf(event.target);
      if (event.key === "+" || event.key === "=") zoom(stage, nextZoom(stage, true));
      else if (event.key === "-") zoom(stage, nextZoom(stage, false));
      else if (event.key === "0") zoom(stage, 1);
      else return;
      event.preventDefault();
    } else if (event.target.matches?.(".pm-canvas")) {
      const canvas = event.target, stage = stageOf(canvas);
      const at = strokes.get(canvas) || [canvas.width / 2, canvas.height / 2];
      const step = Math.max(canvas.width, canvas.height) / 50;
      const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (move) {
        const to = [clamp(at[0] + move[0] * step, 0, canvas.width), clamp(at[1] + move[1] * step, 0, canvas.height)];
        if (event.shiftKey) { paint(stage, at, to); report(stage, false); }
        strokes.set(canvas, to);
      } else if (event.key === " ") {
        paint(stage, at, at);
        report(stage, false);
      } else return;
      event.preventDefault();
    }
  });
  document.addEventListener("wheel", (event) => {
    const view = event.target.closest?.(".pm-window");
    if (!view || !event.ctrlKey) return;
    event.preventDefault();
    zoom(stageOf(view), zoomOf(stageOf(view)) * Math.exp(-event.deltaY / 300));
  }, { passive: false });

  // a new photograph, or another window size
  const seen = new WeakSet();
  new MutationObserver(() => {
    for (const stage of document.querySelectorAll(".pm-stage")) {
      if (!seen.has(stage)) { seen.add(stage); fit(stage); }
    }
  }).observe(document.documentElement, { childList: true, subtree: true });
  addEventListener("resize", () => document.querySelectorAll(".pm-stage").forEach(fit));
})();
