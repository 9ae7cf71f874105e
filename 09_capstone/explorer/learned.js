// Panel 7: the same model at several moments of its training, on the curve of its loss.

import { byId, drawing, whole } from "./show.js";

const WIDTH = 640, HEIGHT = 230, LEFT = 34, RIGHT = 12, TOP = 22, BOTTOM = 44;

export function learnedPanel(view) {
  const { snapshots, losses, training } = view.data;
  const slider = byId("snapshot");
  byId("learned").hidden = snapshots.length < 2;
  byId("no-snapshots").hidden = snapshots.length > 1;
  slider.max = slider.value = snapshots.length - 1;
  slider.addEventListener("input", () => view.use(slider.valueAsNumber));

  const lossOf = ({ val_loss, train_loss }) => val_loss ?? train_loss;
  const dots = snapshots.map((moment) => [moment.step, lossOf(moment)]);
  const points = [...training, ...losses, ...dots].filter(([step, loss]) => step > 0 && loss != null);
  const logs = points.map(([step]) => Math.log(step));
  const [early, late] = [Math.min(...logs), Math.max(...logs)];
  const top = Math.ceil(Math.max(...points.map(([, loss]) => loss)));
  const bottom = Math.floor(Math.min(...points.map(([, loss]) => loss)));
  const x = (step) => LEFT + (WIDTH - LEFT - RIGHT) * (Math.log(step) - early) / (late - early || 1);
  const y = (loss) => TOP + (HEIGHT - TOP - BOTTOM) * (top - loss) / (top - bottom || 1);
  const line = (rows, kind) => drawing("polyline", { points: rows.map(([step, loss]) => `${x(step)},${y(loss)}`).join(" "), class: kind });

  function update() {
    const now = snapshots[view.snapshot];
    const loss = lossOf(now);
    const said = `step ${whole(now.step)}` + (loss == null ? "" : `, ${now.val_loss == null ? "training" : "validation"} loss ${loss.toFixed(2)}`);
    byId("snapshot-is").textContent = said;
    slider.setAttribute("aria-valuetext", said);
    if (!points.length) return;
    const axes = [];
    for (let value = bottom; value <= top; value++) {
      axes.push(drawing("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), class: "grid" }),
        drawing("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, `${value}`));
    }
    for (let step = 1; Math.log(step) <= late; step *= 10) {
      if (Math.log(step) >= early) axes.push(drawing("text", { x: x(step), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }, whole(step)));
    }
    byId("curve").replaceChildren(drawing("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `Loss by training step; these weights: ${said}` },
      ...axes, line(training, "batches"), line(losses, "validation"),
      ...dots.map(([step, loss], i) => loss == null ? "" : drawing("circle", { cx: x(step), cy: y(loss), r: i === view.snapshot ? 7 : 4, class: i === view.snapshot ? "now" : "dot" })),
      drawing("text", { x: 0, y: 12 }, "loss in nats a character: training thin, validation thick"),
      drawing("text", { x: WIDTH - RIGHT, y: HEIGHT - 6, "text-anchor": "end" }, "training step, on a logarithmic scale")));
  }

  return update;
}
