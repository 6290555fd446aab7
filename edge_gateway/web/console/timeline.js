// A run as a waterfall: what happened when, and in what. Only what is in sight is drawn, however long the run is.
import { button, details, element, say } from "./elements.js";

const ROW = 28; // pixels
const LEAST = 3; // pixels of a bar
const CLOSEST = 1; // milliseconds that are shown at least
const STEP = 2; // of a zoom
const ICONS = { agent: "●", tool: "■", question: "?", model: "◆", report: "▫", recovered: "↻" };
const STATES = { running: "goes on", done: "done", failed: "failed", cancelled: "cancelled" };

export class Timeline {
  #recording = null;
  #rows = [];
  #drawn = ""; // what rows were made of
  #elements = []; // that are used again and again
  #active = null; // the span that is looked at
  #from = 0; // what of the run is in sight, in milliseconds; all of it where there is no zoom
  #to = 0;
  #isZoomed = false;
  #found = [];
  #needle = "";

  constructor(host) {
    this.find = element("input", { type: "search", placeholder: "Find", ariaLabel: "Find in the timeline" });
    this.hits = element("span", { className: "hits", role: "status" });
    const tools = element("div", { className: "tools" });
    tools.append(
      this.find,
      this.hits,
      button("−", () => this.zoom(1 / STEP), { title: "Show more of it (-)", ariaLabel: "Zoom out" }),
      button("+", () => this.zoom(STEP), { title: "Look closer (+)", ariaLabel: "Zoom in" }),
      button("All", () => this.fit(), { title: "Show all of it (0)", ariaLabel: "Show all of the run" }),
    );
    this.axis = element("div", { className: "axis", ariaHidden: "true" });
    this.space = element("div", { className: "space", role: "presentation" });
    this.box = element("div", { className: "rows", tabIndex: 0, role: "treegrid", ariaLabel: "What happened, and when" }, this.space);
    this.empty = element("p", { className: "hint" }, "Nothing has happened yet.");
    this.more = element("p", { className: "hint", hidden: true });
    this.about = element("section", { className: "about", ariaLabel: "What is chosen", hidden: true });
    host.append(tools, this.axis, this.box, this.empty, this.more, this.about);
    this.box.addEventListener("scroll", () => this.draw());
    this.box.addEventListener("keydown", (pressed) => this.#onKey(pressed));
    this.box.addEventListener("wheel", (turned) => this.#onWheel(turned), { passive: false });
    this.space.addEventListener("click", (clicked) => this.#onClick(clicked));
    this.find.addEventListener("input", () => this.#search());
    this.find.addEventListener("keydown", (pressed) => this.#onFindKey(pressed));
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  /** Shows a run, or none. */
  show(recording) {
    if (recording === this.#recording) return;
    this.#recording = recording;
    this.#drawn = null;
    this.#active = null;
    this.#isZoomed = false;
    this.box.scrollTop = 0;
    this.#search();
    this.draw();
  }

  /** Draws what is in sight. */
  draw() {
    const recording = this.#recording;
    if (!this.box.clientHeight && this.#rows.length) return; // nobody sees it
    this.#findRows();
    this.box.hidden = this.axis.hidden = !this.#rows.length;
    this.empty.hidden = this.#rows.length > 0;
    this.more.hidden = !recording?.dropped;
    if (recording?.dropped) this.more.textContent = `Earlier: ${count(recording.dropped)} that are not kept any more.`;
    if (!this.#isZoomed) [this.#from, this.#to] = [0, Math.max(recording?.length ?? 0, CLOSEST)];
    this.space.style.height = `${this.#rows.length * ROW}px`;
    this.box.ariaRowCount = String(this.#rows.length);
    const first = Math.max(Math.floor(this.box.scrollTop / ROW) - 1, 0);
    const most = Math.ceil(this.box.clientHeight / ROW) + 2;
    const inSight = this.#rows.slice(first, first + most);
    while (this.#elements.length < inSight.length) this.#elements.push(this.#makeRow());
    for (const [index, row] of this.#elements.entries()) {
      row.element.hidden = index >= inSight.length;
      if (index < inSight.length) this.#drawRow(row, inSight[index], first + index);
    }
    const active = this.#elements.find(({ element, span }) => !element.hidden && span === this.#active);
    if (active) this.box.setAttribute("aria-activedescendant", active.element.id);
    else this.box.removeAttribute("aria-activedescendant");
    this.#drawAxis();
    this.#drawAbout();
  }

  /** Looks closer, around what is chosen or a point. */
  zoom(factor, around) {
    const { length } = this.#recording ?? { length: 0 };
    const middle = around ?? (this.#active ? this.#active.start : (this.#from + this.#to) / 2);
    const width = Math.max((this.#to - this.#from) / factor, CLOSEST);
    const share = around === undefined ? 0.5 : (around - this.#from) / (this.#to - this.#from);
    this.#isZoomed = width < length;
    this.#look(middle - width * share, width);
  }

  fit() {
    this.#isZoomed = false;
    this.draw();
  }

  #look(from, width) {
    const length = Math.max(this.#recording?.length ?? 0, CLOSEST);
    this.#from = Math.min(Math.max(from, 0), Math.max(length - width, 0));
    this.#to = this.#from + width;
    this.draw();
  }

  #findRows() {
    const recording = this.#recording;
    const drawn = recording ? `${recording.spans.length} ${recording.dropped} ${this.#toggled}` : "";
    if (drawn === this.#drawn) return;
    const isAtEnd = this.box.scrollTop + this.box.clientHeight >= this.#rows.length * ROW - ROW;
    this.#drawn = drawn;
    this.#rows = recording?.rows() ?? [];
    if (this.#needle) this.#match();
    if (!isAtEnd || !recording || recording.state !== "running") return;
    this.space.style.height = `${this.#rows.length * ROW}px`; // whoever looks at the end goes on to
    this.box.scrollTop = this.#rows.length * ROW;
  }

  #toggled = 0;

  #makeRow() {
    const name = element("span", { role: "gridcell", className: "name" });
    const canvas = element("canvas", { ariaHidden: "true" });
    const bar = element("span", { className: "bar" });
    const track = element("span", { role: "gridcell", className: "track" }, bar, canvas);
    const time = element("span", { role: "gridcell", className: "time" });
    const row = element("div", { role: "row", className: "row", id: `row-${++made}` }, name, track, time);
    this.space.append(row);
    return { element: row, name, bar, track, canvas, time, span: null };
  }

  #drawRow(row, span, index) {
    const { element: shown, name, bar, track, canvas, time } = row;
    row.span = span;
    shown.style.transform = `translateY(${index * ROW}px)`;
    const isActive = span === this.#active;
    const words = `${span.children.length ? (span.isOpen ? "▾" : "▸") : " "} ${ICONS[span.kind]} ${span.name}`;
    const kind = `row ${span.kind} ${span.state}${isActive ? " active" : ""}${this.#isFound(span) ? " found" : ""}`;
    if (shown.className !== kind) shown.className = kind;
    if (name.textContent !== words) {
      name.textContent = words;
      name.title = span.name;
    }
    name.style.paddingInlineStart = `${6 + 14 * Math.min(span.depth, 8)}px`;
    shown.ariaRowIndex = String(index + 1);
    shown.ariaLevel = String(span.depth + 1);
    shown.ariaSelected = String(isActive);
    shown.ariaExpanded = span.children.length ? String(span.isOpen) : null;
    const [from, to] = [this.#share(span.start), this.#share(span.end ?? this.#recording.length)];
    const isOut = to < 0 || from > 1;
    bar.hidden = isOut;
    if (!isOut) {
      const left = Math.max(from, 0);
      bar.style.insetInlineStart = `${left * 100}%`;
      bar.style.width = `max(${LEAST}px, ${(Math.min(to, 1) - left) * 100}%)`;
    }
    say(time, span.end === null ? STATES.running : spent(span.end - span.start));
    track.ariaLabel = `${span.kind}, ${STATES[span.state]}, from ${spent(span.start)}`;
    this.#drawMarks(canvas, track, span);
  }

  #drawMarks(canvas, track, span) {
    canvas.hidden = !(span.words || span.thoughts);
    if (canvas.hidden) return;
    const [width, height] = [track.clientWidth, ROW];
    if (canvas.width !== width) [canvas.width, canvas.height] = [width, height];
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, width, height);
    const colours = getComputedStyle(track);
    const isRight = colours.direction === "rtl";
    for (const [marks, colour, top] of [[span.thoughts, "--mark-thought", 6], [span.words, "--mark-word", 15]]) {
      pen.fillStyle = colours.getPropertyValue(colour);
      let last = -1;
      for (let index = 0; index < (marks?.length ?? 0); index++) {
        const x = Math.round(this.#share(marks.at(index)) * width);
        if (x === last || x < 0 || x > width) continue;
        last = x;
        pen.fillRect(isRight ? width - x : x, top, 1.5, 7);
      }
    }
  }

  #drawAxis() {
    const width = this.#to - this.#from;
    const step = stepOf(width / Math.max(Math.floor(this.box.clientWidth * 0.5 / 80), 1)); // as many as have room
    const labels = [];
    for (let at = Math.ceil(this.#from / step) * step; at <= this.#to; at += step) labels.push(at);
    const words = labels.map((at) => spent(at)).join();
    if (this.axis.dataset.words !== words) {
      this.axis.dataset.words = words;
      this.axis.replaceChildren(element("span", { className: "track" }, ...labels.map((at) => element("span", {}, spent(at)))));
    }
    for (const [index, at] of labels.entries()) {
      this.axis.firstChild.children[index].style.insetInlineStart = `${this.#share(at) * 100}%`;
    }
  }

  #share(at) {
    return (at - this.#from) / (this.#to - this.#from);
  }

  /** Says all that is known of what is chosen. */
  #drawAbout() {
    const span = this.#active;
    const version = span ? `${span.state} ${Object.keys(span.about).join()}` : "";
    if (this.#shown === span && this.#shownAs === version) return;
    [this.#shown, this.#shownAs] = [span, version];
    this.about.hidden = !span;
    if (!span) return;
    const took = span.end === null ? "" : `, ${spent(span.end - span.start)}`;
    const head = `${STATES[span.state]}, from ${spent(span.start)}${took}`;
    const known = Object.entries(span.about).filter(([, value]) => value !== undefined && value !== "");
    const parts = known.map(([name, value]) => {
      const part = name === "forgotten" ? element("p", { className: "hint" }, "Some of it is not kept any more.") : details(name, value);
      if (known.length < 4 || ["error", "message", "reason"].includes(name)) part.open = true;
      return part;
    });
    this.about.replaceChildren(element("h2", {}, `${ICONS[span.kind]} ${span.name} `), element("p", {}, head), ...parts);
  }

  #shown = null;
  #shownAs = "";

  /** Chooses a span, and has it in sight. */
  choose(span) {
    this.#active = span;
    const at = this.#rows.indexOf(span) * ROW;
    if (at >= 0 && at < this.box.scrollTop) this.box.scrollTop = at;
    if (at + ROW > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = at + ROW - this.box.clientHeight;
    if (span && this.#isZoomed && (span.start > this.#to || span.start < this.#from)) {
      const width = this.#to - this.#from;
      this.#look(span.start - width / 2, width);
      return;
    }
    this.draw();
  }

  /** Chooses what tells most: of a run that failed what failed in the first place, and otherwise the run itself. */
  chooseCause() {
    this.#findRows();
    const failed = this.#recording?.state === "failed" ? this.#rows.filter(({ state }) => state === "failed") : [];
    this.choose(failed.at(-1) ?? this.#rows[0] ?? null);
  }

  #onClick({ target, offsetX }) {
    const row = this.#elements.find(({ element: shown }) => shown.contains(target));
    if (!row) return;
    const isTwisty = target === row.name && row.span.children.length && offsetX < 28 + 14 * row.span.depth;
    if (isTwisty) this.#toggle(row.span, !row.span.isOpen);
    this.choose(row.span);
  }

  #toggle(span, isOpen) {
    if (!span.children.length || span.isOpen === isOpen) return;
    span.isOpen = isOpen;
    this.#toggled++;
    this.draw();
  }

  #onKey(pressed) {
    if (pressed.ctrlKey || pressed.metaKey || pressed.altKey) return;
    const at = this.#rows.indexOf(this.#active);
    const page = Math.max(Math.floor(this.box.clientHeight / ROW) - 1, 1);
    const move = (index) => this.choose(this.#rows[Math.min(Math.max(index, 0), this.#rows.length - 1)] ?? null);
    const width = this.#to - this.#from;
    const isRight = getComputedStyle(this.box).direction === "rtl";
    const [inward, outward] = isRight ? ["ArrowLeft", "ArrowRight"] : ["ArrowRight", "ArrowLeft"];
    const does = {
      ArrowDown: () => move(at + 1),
      ArrowUp: () => move(at < 0 ? this.#rows.length - 1 : at - 1),
      PageDown: () => move(at + page),
      PageUp: () => move(at - page),
      Home: () => move(0),
      End: () => move(this.#rows.length - 1),
      [inward]: () => (pressed.shiftKey ? this.#look(this.#from + width / 4, width) : this.#active && this.#toggle(this.#active, true)),
      [outward]: () => (pressed.shiftKey ? this.#look(this.#from - width / 4, width) : this.#leaveOrClose()),
      "+": () => this.zoom(STEP),
      "=": () => this.zoom(STEP),
      "-": () => this.zoom(1 / STEP),
      0: () => this.fit(),
      "/": () => this.find.focus(),
      Escape: () => this.choose(null),
    }[pressed.key];
    if (!does) return;
    pressed.preventDefault();
    does();
  }

  #leaveOrClose() {
    const span = this.#active;
    if (span?.isOpen && span.children.length) this.#toggle(span, false);
    else if (span?.parent) this.choose(span.parent);
  }

  #onWheel(turned) {
    if (!turned.ctrlKey) return;
    turned.preventDefault();
    const { left, width } = (this.#elements[0]?.track ?? this.box).getBoundingClientRect();
    const share = Math.min(Math.max((turned.clientX - left) / width, 0), 1);
    this.zoom(turned.deltaY < 0 ? 1.25 : 0.8, this.#from + share * (this.#to - this.#from));
  }

  #onFindKey(pressed) {
    if (pressed.key === "Escape") this.box.focus();
    if (pressed.key !== "Enter" || !this.#found.length) return;
    pressed.preventDefault();
    const at = this.#found.indexOf(this.#active) + (pressed.shiftKey ? -1 : 1);
    this.choose(this.#found.at(at % this.#found.length));
    this.#sayHits();
  }

  #search() {
    this.#needle = this.find.value.trim().toLowerCase();
    this.#match();
    if (this.#found.length) this.choose(this.#found[0]);
    else this.draw();
    this.#sayHits();
  }

  #match() {
    this.#found = this.#needle ? this.#rows.filter((span) => isIn(span, this.#needle)) : [];
    this.#isFoundSet = new Set(this.#found);
  }

  #isFoundSet = new Set();

  #isFound(span) {
    return this.#isFoundSet.has(span);
  }

  #sayHits() {
    const at = this.#found.indexOf(this.#active) + 1;
    this.hits.textContent = this.#needle ? (this.#found.length ? `${at} of ${count(this.#found.length)}` : "not found") : "";
  }
}

let made = 0; // rows so far: each has an id of its own

function isIn(span, needle) {
  return span.name.toLowerCase().includes(needle) || JSON.stringify(span.about).toLowerCase().includes(needle);
}

/** The smallest step of 1, 2 or 5 that is at least as long. */
function stepOf(least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 0.1)));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least);
}

/** A time in words, as exact as it is of use. */
export function spent(milliseconds) {
  if (milliseconds < 10) return `${milliseconds.toFixed(milliseconds < 1 && milliseconds > 0 ? 1 : 0)} ms`;
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  if (milliseconds < 120_000) return `${(milliseconds / 1000).toFixed(2)} s`;
  return `${Math.floor(milliseconds / 60_000)} min ${Math.round((milliseconds % 60_000) / 1000)} s`;
}

function count(number) {
  return number.toLocaleString("en");
}
