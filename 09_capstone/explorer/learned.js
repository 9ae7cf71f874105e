// Panel 7: the same model at several moments of its training, on the curve of its loss.

import { byId, drawing, whole } from "./show.js";

const WIDTH = 640, HEIGHT = 220, LEFT = 44, RIGHT = 12, TOP = 12, BOTTOM = 44;

export function learnedPanel(view) {
  const { snapshots, losses } = view.data;
  const slider = byId("snapshot");
  byId("learned").hidden = snapshots.length < 2;
  byId("no-snapshots").hidden = snapshots.length > 1;
  slider.max = slider.value = snapshots.length - 1;
  slider.addEventListener("input", () => view.use(slider.valueAsNumber));

  const points = losses.filter(([step, loss]) => step > 0 && Number.isFinite(loss));
  const steps = [...points.map(([step]) => step), ...snapshots.map(({ step }) => step)].filter((step) => step > 0);
  const [early, late] = [Math.log(Math.min(...steps)), Math.log(Math.max(...steps))];
  const top = Math.ceil(2 * Math.max(...points.map(([, loss]) => loss))) / 2;
  const bottom = Math.floor(2 * Math.min(...points.map(([, loss]) => loss))) / 2;
  const x = (step) => LEFT + (WIDTH - LEFT - RIGHT) * (late > early ? (Math.log(Math.max(1, step)) - early) / (late - early) : 1);
  const y = (loss) => TOP + (HEIGHT - TOP - BOTTOM) * (top - loss) / (top - bottom || 1);

  // The loss at a step that was not evaluated lies between its neighbors'.
  function lossAt(step) {
    const after = points.findIndex(([s]) => s >= step);
    if (after < 1) return points.at(after)[1];
    const [[s, a], [t, b]] = points.slice(after - 1, after + 1);
    return a + (b - a) * (Math.log(step) - Math.log(s)) / (Math.log(t) - Math.log(s));
  }

  function update() {
    const now = snapshots[view.snapshot];
    const loss = now.val_loss ?? now.train_loss;
    const said = `step ${whole(now.step)}` + (loss == null ? "" : `, loss ${loss.toFixed(2)}`);
    byId("snapshot-is").textContent = said;
    slider.setAttribute("aria-valuetext", said);
    if (!points.length) return;
    const ticks = [];
    for (let value = bottom; value <= top; value += top - bottom > 2 ? 1 : 0.5) {
      ticks.push(drawing("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), class: "grid" }),
        drawing("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, `${value}`));
    }
    for (const step of [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000]) {
      if (Math.log(step) >= early && Math.log(step) <= late) {
        ticks.push(drawing("text", { x: x(step), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }, whole(step)));
      }
    }
    byId("curve").replaceChildren(drawing("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `Loss by training step; these weights: ${said}` },
      ...ticks,
      drawing("polyline", { points: points.map(([step, value]) => `${x(step)},${y(value)}`).join(" "), class: "line" }),
      ...snapshots.map(({ step }, i) => drawing("circle", { cx: x(step), cy: y(lossAt(step)), r: i === view.snapshot ? 7 : 4, class: i === view.snapshot ? "now" : "dot" })),
      drawing("text", { x: WIDTH - RIGHT, y: HEIGHT - 6, "text-anchor": "end" }, "training step, on a logarithmic scale"),
      drawing("text", { x: LEFT + 4, y: TOP + 12 }, "loss, nats a character")));
  }

  return update;
}
