// Panel 7: the same model at several moments of its training, on the curve of its loss.

import { byId, drawing, whole } from "./show.js";

const HEIGHT = 230, LEFT = 34, RIGHT = 12, TOP = 22, BOTTOM = 44;

export function learnedPanel(view) {
  const { snapshots, losses, training } = view.data;
  const slider = byId("snapshot"), curve = byId("curve");
  byId("learned").hidden = snapshots.length < 2;
  byId("no-snapshots").hidden = snapshots.length > 1;
  if (snapshots.length < 2) byId("look-learned").textContent = "Look at the loss over the steps, as far as the run noted it.";
  slider.max = slider.value = snapshots.length - 1;
  slider.addEventListener("input", () => view.use(slider.valueAsNumber));
  new ResizeObserver(update).observe(curve);

  const lossOf = ({ val_loss, train_loss }) => val_loss ?? train_loss;
  const points = [...training, ...losses].filter(([step]) => step > 0);
  const dots = snapshots.map((moment) => [Math.max(1, moment.step), lossOf(moment) ?? between(moment.step)]);
  points.push(...dots.filter(([, loss]) => loss != null));
  const logs = points.map(([step]) => Math.log(step));
  const [early, late] = range(logs);
  const [least, most] = range(points.map(([, loss]) => loss));
  const gap = 10 ** Math.max(0, Math.ceil(Math.log10((most - least) / 10))); // at most 12 lines
  const [bottom, top] = [Math.floor(least / gap), Math.ceil(most / gap)]; // in gaps

  function range(numbers) { // a run may have more of them than a call takes
    return numbers.reduce(([a, b], n) => [Math.min(a, n), Math.max(b, n)], [Infinity, -Infinity]);
  }

  function told(moment) {
    const loss = lossOf(moment);
    const kind = moment.val_loss == null ? "training" : "validation";
    return `step ${whole(moment.step)}, ` + (loss == null ? "its loss was not noted" : `${kind} loss ${loss.toFixed(2)}`);
  }

  // At a step whose loss nobody noted, it lies between those of its neighbors.
  function between(step) {
    const after = training.findIndex(([s]) => s >= step);
    if (after < 1) return training.at(after)?.[1];
    const [[s, a], [t, b]] = training.slice(after - 1, after + 1);
    return a + (b - a) * (Math.log(step) - Math.log(s)) / (Math.log(t) - Math.log(s));
  }

  function update() {
    const said = told(snapshots[view.snapshot]);
    byId("snapshot-is").textContent = said;
    slider.setAttribute("aria-valuetext", said);
    if (points.length) draw(said);
  }

  function draw(said) {
    const width = curve.clientWidth || 640;
    const x = (step) => LEFT + (width - LEFT - RIGHT) * (Math.log(step) - early) / (late - early || 1);
    const y = (loss) => TOP + (HEIGHT - TOP - BOTTOM) * (top - loss / gap) / (top - bottom || 1);
    const words = (text, place) => drawing("text", place, text);
    const line = (rows, kind) => drawing("polyline", {
      points: rows.filter(([step]) => step > 0).map(([step, loss]) => `${x(step)},${y(loss)}`).join(" "), class: kind,
    });
    const axes = [];
    for (let value = bottom; value <= top; value++) {
      axes.push(drawing("line", { x1: LEFT, x2: width - RIGHT, y1: y(value * gap), y2: y(value * gap), class: "grid" }),
        words(gap < 1000 ? `${value * gap}` : (value * gap).toExponential(0), { x: LEFT - 8, y: y(value * gap) + 4, "text-anchor": "end" }));
    }
    for (let step = 1; Math.log(step) <= late; step *= 10) {
      const place = { x: x(step), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" };
      if (Math.log(step) >= early) axes.push(words(whole(step), place));
    }
    curve.replaceChildren(drawing("svg",
      { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": `Loss by training step; these weights: ${said}` },
      ...axes, line(training, "batches"), line(losses, "validation"),
      ...dots.map(([step, loss], i) => loss == null ? "" : drawing("circle", {
        cx: x(step), cy: y(loss), r: i === view.snapshot ? 7 : 4,
        class: (i === view.snapshot ? "now" : "dot") + (lossOf(snapshots[i]) == null ? " between" : ""),
      }, drawing("title", {}, told(snapshots[i])))),
      words("loss in nats a character: training thin, validation thick", { x: 0, y: 12 }),
      words("training step, on a logarithmic scale", { x: width - RIGHT, y: HEIGHT - 6, "text-anchor": "end" })));
  }

  return update;
}
