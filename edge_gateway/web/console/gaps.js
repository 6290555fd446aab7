// How evenly a run's events come: the gap before each, as a line over time.

const WIDTH = 10_000; // milliseconds that are in sight
const [LEAST, DECADES] = [10, 3]; // milliseconds at the bottom, and how many times ten of it are at the top: the same for all
const LINES = { "0.1 s": 100, "1 s": 1000 }; // milliseconds that have a line

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
    const share = (gap) => Math.min(Math.max(Math.log10(gap / LEAST) / DECADES, 0.02), 1);
    const y = (gap) => height - share(gap) * (height - 2);
    pen.strokeStyle = colours.getPropertyValue("--soft");
    pen.setLineDash([2, 4]);
    pen.fillStyle = colours.getPropertyValue("--soft");
    pen.font = "10px system-ui";
    for (const [words, line] of Object.entries(LINES)) {
      pen.fillText(words, 1, y(line) - 2);
      pen.beginPath();
      pen.moveTo(0, Math.round(y(line)) + 0.5);
      pen.lineTo(width, Math.round(y(line)) + 0.5);
      pen.stroke();
    }
    pen.fillStyle = colours.color;
    for (const { at, gap } of points) {
      const x = width - ((end - at) / WIDTH) * width;
      const wide = Math.max((gap / WIDTH) * width, 1.5);
      pen.fillRect(x - wide, y(gap), wide, height - y(gap));
    }
  }
}
