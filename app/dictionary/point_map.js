// Points on a plane, drawn on a canvas: the pointer shows a point's text, a click sends its number,
// dragging zooms into a rectangle, a double click shows all again.

const MARGIN = 14, NEAR = 9, DRAGGED = 5; // pixels
const views = new WeakMap(); // by place on the page: what is drawn, and the part of the plane that is shown

const numbers = (text, kind) => new kind(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);

export default function ({ data, parentElement, setTriggerValue }) {
  const find = (name) => parentElement.querySelector(name);
  const canvas = find("canvas"), plane = find(".plane"), tip = find(".tip"), box = find(".box");
  const before = views.get(parentElement);
  if (before) before.observer.disconnect(); // with other data this runs again, and the old must not be drawn any more
  const view = before && before.of === data.of ? before : { of: data.of, x: [0, 1], y: [0, 1] };
  views.set(parentElement, view);
  const x = numbers(data.x, Uint16Array), y = numbers(data.y, Uint16Array);
  const colour = numbers(data.colour, Uint8Array);
  let width = 0, height = 0;

  const across = (n) => MARGIN + ((x[n] / 65535 - view.x[0]) / (view.x[1] - view.x[0])) * (width - 2 * MARGIN);
  const down = (n) => height - MARGIN - ((y[n] / 65535 - view.y[0]) / (view.y[1] - view.y[0])) * (height - 2 * MARGIN);

  const draw = () => {
    const sharp = window.devicePixelRatio || 1;
    width = plane.clientWidth;
    height = plane.clientHeight;
    canvas.width = Math.round(width * sharp);
    canvas.height = Math.round(height * sharp);
    const pen = canvas.getContext("2d");
    pen.scale(sharp, sharp);
    for (let n = 0; n < x.length; n++) { // those behind come first
      const style = data.styles[colour[n]];
      pen.globalAlpha = style.alpha;
      pen.fillStyle = style.colour;
      pen.beginPath();
      pen.arc(across(n), down(n), style.radius, 0, 7);
      pen.fill();
    }
    parentElement.host.dataset.drawn = data.colouring; // so that one can wait for it
  };

  const at = (event) => {
    const place = canvas.getBoundingClientRect();
    return [event.clientX - place.left, event.clientY - place.top];
  };
  const nearest = ([left, top]) => {
    let best = -1, least = NEAR * NEAR;
    for (let n = 0; n < x.length; n++) {
      const distance = (across(n) - left) ** 2 + (down(n) - top) ** 2;
      if (distance <= least) { best = n; least = distance; } // of those as near, the one in front
    }
    return best;
  };

  let from = null;
  const hide = () => { tip.hidden = true; canvas.style.cursor = ""; };
  plane.onpointermove = (event) => {
    const [left, top] = at(event);
    if (from && Math.max(Math.abs(left - from[0]), Math.abs(top - from[1])) > DRAGGED) {
      hide();
      box.hidden = false;
      Object.assign(box.style, {
        left: `${Math.min(left, from[0])}px`, top: `${Math.min(top, from[1])}px`,
        width: `${Math.abs(left - from[0])}px`, height: `${Math.abs(top - from[1])}px`,
      });
      return;
    }
    const found = nearest([left, top]);
    if (found < 0) return hide();
    tip.hidden = false;
    tip.textContent = data.texts[found]; // never as HTML
    canvas.style.cursor = "pointer";
    const right = across(found) + 12 + tip.offsetWidth > width;
    tip.style.left = `${right ? across(found) - 12 - tip.offsetWidth : across(found) + 12}px`;
    tip.style.top = `${Math.min(Math.max(down(found) - 12, 0), height - tip.offsetHeight)}px`;
  };
  plane.onpointerleave = () => { if (!from) hide(); };
  plane.onpointerdown = (event) => {
    if (event.button) return;
    from = at(event);
    plane.setPointerCapture(event.pointerId);
  };
  plane.onpointerup = (event) => {
    if (!from) return;
    const to = at(event), start = from;
    from = null;
    if (box.hidden) {
      const found = nearest(to);
      if (found >= 0) setTriggerValue("open", data.latents[found]);
      return;
    }
    box.hidden = true;
    const part = (values, span, low, high) => {
      const shown = (pixel) => values[0] + ((pixel - MARGIN) / (span - 2 * MARGIN)) * (values[1] - values[0]);
      return [shown(low), shown(high)];
    };
    const [lowest, highest] = [height - Math.max(to[1], start[1]), height - Math.min(to[1], start[1])];
    if (highest - lowest < DRAGGED || Math.abs(to[0] - start[0]) < DRAGGED) return;
    view.x = part(view.x, width, Math.min(to[0], start[0]), Math.max(to[0], start[0]));
    view.y = part(view.y, height, lowest, highest);
    draw();
  };
  plane.onpointercancel = () => { from = null; box.hidden = true; };
  plane.ondblclick = () => { view.x = [0, 1]; view.y = [0, 1]; draw(); };

  canvas.setAttribute("aria-label", data.title);
  find(".across").textContent = data.axes[0];
  find(".up").textContent = data.axes[1];
  find(".scale").hidden = !data.ticks.length;
  find(".ramp").style.background = `linear-gradient(0deg, ${data.styles.map((style) => style.colour).join(", ")})`;
  find(".ticks").replaceChildren(...data.ticks.map(([share, text]) => {
    const tick = document.createElement("span");
    tick.textContent = text;
    tick.style.bottom = `${100 * share}%`;
    return tick;
  }));
  find(".names").replaceChildren(...data.names.map(([style, text]) => {
    const line = document.createElement("div"), dot = document.createElement("i");
    dot.style.background = data.styles[style].colour;
    dot.style.opacity = data.styles[style].alpha;
    line.append(dot, text);
    return line;
  }));
  draw();
  const observer = (view.observer = new ResizeObserver(() => {
    if (plane.clientWidth !== width || plane.clientHeight !== height) draw();
  }));
  observer.observe(plane);
  return () => observer.disconnect();
}
