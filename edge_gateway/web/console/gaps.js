// How evenly a run's events come: the gap before each, as a line over time.

const WIDTH = 10_000; // milliseconds that are in sight
const LEAST = 250; // milliseconds that the height stands for at least

/** Gaps between a run's events. */
export class Gaps {
  largest = 0;
  #points = []; // when an event came, and the gap before it
  #last = null;

  add(now) {
    if (this.#last !== null) {
      const gap = now - this.#last;
      this.largest = Math.max(this.largest, gap);
      const before = this.#points.at(-1);
      if (before && now - before.at < 20) before.gap = Math.max(before.gap, gap); // as fine as one sees it
      else this.#points.push({ at: now, gap });
    }
    this.#last = now;
    while (this.#points.length && now - this.#points[0].at > WIDTH) this.#points.shift();
  }

  /** Draws them; `isRunning` says that the newest gap still grows. */
  draw(canvas, now, isRunning) {
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const pen = canvas.getContext("2d");
    const colours = getComputedStyle(canvas);
    pen.clearRect(0, 0, width, height);
    const open = isRunning && this.#last !== null ? [{ at: now, gap: now - this.#last }] : [];
    const points = [...this.#points, ...open];
    const end = isRunning ? now : (this.#last ?? now);
    const most = Math.max(LEAST, ...points.map(({ gap }) => gap));
    const y = (gap) => height - 2 - (gap / most) * (height - 6);
    pen.strokeStyle = colours.getPropertyValue("--line");
    pen.strokeRect(0, Math.round(y(100)) + 0.5, width, 0);
    pen.fillStyle = colours.color;
    for (const { at, gap } of points) {
      const x = width - ((end - at) / WIDTH) * width;
      const wide = Math.max((gap / WIDTH) * width, 1.5);
      pen.fillRect(x - wide, y(gap), wide, height - y(gap));
    }
    return most;
  }
}
