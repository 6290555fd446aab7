// Side by side: up to six users at once, each with a run of their own, and how evenly its events come.
import { button, element, say } from "./elements.js";
import { Gaps } from "./gaps.js";
import { Live } from "./live.js";
import { spent } from "./timeline.js";

const MOST = 6;
const EVEN = "try_counting";
/** What there is to see, each with the agents of the six. The first is in the first lane. */
const SCENES = {
  "Six users, one computes": ["try_computing", EVEN, EVEN, EVEN, EVEN, EVEN],
  "Six users, one crashes": ["try_crashing", EVEN, EVEN, EVEN, EVEN, EVEN],
  "Six users, one floods": ["try_flooding", EVEN, EVEN, EVEN, EVEN, EVEN],
};
const NAMES = ["alice", "bob", "carol", "dave", "erin", "frank"];

export class SideBySide {
  lanes = [];
  #agents = [];

  /** `who` knows tokens; each lane of development is a user of its own. */
  constructor(host, who) {
    this.who = who;
    this.scenes = element("p", { className: "buttons scenes" });
    this.add = button("Add a user", () => this.#add(), { className: "add" });
    this.stop = button("Stop all", () => this.lanes.forEach((lane) => lane.stop()), { className: "stop" });
    this.hint = element(
      "p",
      { className: "hint" },
      "Each run is a process of its own. Under each are the gaps between its events, from 10 ms to 10 s: whatever a neighbour does, those of who counts evenly stay around the line at 100 ms.",
    );
    this.grid = element("div", { className: "lanes" });
    this.summary = element("p", { className: "summary", role: "status" });
    const buttons = element("div", { className: "buttons" }, this.scenes, this.stop, this.add);
    host.append(buttons, this.hint, this.summary, this.grid);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.lanes.forEach((lane) => lane.redraw()));
  }

  /** Learns which agents there are. */
  know(agents) {
    this.#agents = agents;
    const there = new Set(agents.map(({ name }) => name));
    const able = Object.entries(SCENES).filter(([, names]) => names.every((name) => there.has(name)));
    const names = able.map(([name]) => name);
    if (names.join() !== [...this.scenes.children].map(({ textContent }) => textContent).join()) {
      this.scenes.replaceChildren(...able.map(([name, cast]) => button(name, () => this.#play(cast))));
    }
    for (const lane of this.lanes) lane.know(agents);
    if (!this.lanes.length) this.#add();
  }

  /** Has nobody any more. */
  clear() {
    for (const lane of this.lanes) lane.leave();
    this.lanes = [];
    this.grid.replaceChildren();
    this.add.disabled = false;
  }

  draw() {
    const now = performance.now();
    for (const lane of this.lanes) lane.draw(now);
    this.stop.disabled = !this.lanes.some((lane) => lane.isRunning);
    say(this.summary, this.#summary());
  }

  /** What there is to see: how the even ones fared beside the others. */
  #summary() {
    const begun = this.lanes.filter(({ events }) => events > 1);
    const even = begun.filter(({ plays }) => plays === EVEN);
    const others = begun.filter(({ plays }) => plays !== EVEN);
    if (!even.length || !others.length) return "";
    const worst = (lanes) => spent(Math.max(...lanes.map(({ largest }) => largest)));
    return `Largest gap of ${others.map(({ plays }) => plays).join(", ")}: ${worst(others)}; of the ${even.length} beside it: ${worst(even)}.`;
  }

  #play(cast) {
    while (this.lanes.length < cast.length) this.#add();
    for (const [index, agent] of cast.entries()) this.lanes[index].play(agent);
  }

  #add() {
    const taken = new Set(this.lanes.map(({ name }) => name));
    const free = NAMES.find((name) => !taken.has(name));
    const lane = new Lane(free, this.who, () => this.#remove(lane));
    this.lanes.push(lane);
    lane.know(this.#agents);
    this.grid.append(lane.element);
    this.add.disabled = this.lanes.length === MOST;
  }

  #remove(lane) {
    lane.stop();
    this.lanes = this.lanes.filter((each) => each !== lane);
    lane.element.remove();
    this.add.disabled = false;
    this.add.focus();
  }
}

/** One user's run, among others. */
class Lane {
  #live = null;
  #gaps = new Gaps();
  #drawn = -1;

  constructor(name, who, onremove) {
    this.name = name;
    this.who = who.as(name);
    this.agent = element("select", { ariaLabel: `${name}'s agent` });
    this.input = element("input", { ariaLabel: `What ${name} asks`, value: "Hello", dir: "auto" });
    this.begin = button("Start", () => this.start(), { className: "begin" });
    this.end = button("Stop", () => this.stop(), { className: "end", disabled: true });
    this.state = element("span", { className: "state", role: "status" }, "idle");
    this.words = element("p", { className: "words", dir: "auto" });
    this.canvas = element("canvas", { className: "gaps", role: "img" });
    this.worst = element("p", { className: "worst" }, "no gap yet");
    const title = this.who === who ? "you" : name; // where nobody is believed all runs are one's own
    const head = element("header", {}, element("h2", {}, title), this.state);
    const remove = button("Remove", onremove, { className: "remove", ariaLabel: `Remove ${name}` });
    const buttons = element("p", { className: "buttons" }, this.begin, this.end, remove);
    const asks = element("div", { className: "asks" }, this.agent, this.input);
    this.element = element("article", { className: "lane", ariaLabel: name }, head, asks, buttons, this.words);
    this.element.append(this.canvas, this.worst);
  }

  know(agents) {
    const names = agents.map(({ name }) => name);
    if (names.join() === [...this.agent.options].map(({ value }) => value).join()) return;
    const chosen = this.agent.value;
    this.agent.replaceChildren(...names.map((name) => new Option(name, name)));
    this.agent.value = names.includes(chosen) ? chosen : names.includes(EVEN) ? EVEN : (names[0] ?? "");
  }

  get runId() {
    return this.#live?.runId;
  }

  get isRunning() {
    return Boolean(this.#live && !this.#live.isOver);
  }

  /** The agent whose run it shows, how many events came, and the largest gap between two. */
  get plays() {
    return this.#live?.request.agent;
  }

  get events() {
    return this.#live?.recording.events ?? 0;
  }

  get largest() {
    return this.#gaps.largest;
  }

  redraw() {
    this.#drawn = -1;
  }

  play(agent) {
    this.agent.value = agent;
    this.start();
  }

  start() {
    this.stop();
    const live = (this.#live = new Live({ agent: this.agent.value, input: this.input.value }, this.who));
    const gaps = (this.#gaps = new Gaps());
    live.onevent = () => gaps.add(performance.now());
    live.start();
    this.#drawn = -1;
  }

  leave() {
    this.#live?.letGo();
  }

  stop() {
    if (this.isRunning) this.#live.cancel();
  }

  draw(now) {
    const live = this.#live;
    if (!live || !this.element.offsetParent) return;
    const { isRunning } = this;
    if (!isRunning && this.#drawn === live.recording.version) return;
    this.#drawn = live.recording.version;
    const { recording } = live;
    this.element.dataset.state = live.state;
    this.element.classList.toggle("even", this.plays === EVEN);
    say(this.state, live.words);
    const failure = live.error?.message ?? (recording.state === "failed" ? recording.ending.message : "");
    say(this.words, failure || recording.answer.text.slice(-90) || recording.thoughts.text.slice(-90));
    this.begin.textContent = "Start again";
    this.end.disabled = !isRunning;
    this.#gaps.draw(this.canvas, now, isRunning);
    const worst = `largest gap ${spent(this.#gaps.largest)}, ${recording.events.toLocaleString("en")} events`;
    say(this.worst, worst);
    this.canvas.ariaLabel = worst;
  }
}
