// One turn of a conversation: what was asked, and the run that answers it, as it goes on.
import { button, copy, details, element, many, say } from "./elements.js";
import { asForm, inWords } from "./questions.js";
import { Prose } from "./prose.js";
import { spent } from "./timeline.js";

const QUIET = 2000; // milliseconds without an event until a run is said to be still working
const STEPS = 4; // of what happens that are named beside the answer

export class Turn {
  #drawn = -1;
  #questions = new Map(); // forms, by their questions' ids
  #settled = new Set(); // questions of which it is said what became of them

  /** `turn` is what is kept of it; `live` is its run, if this page follows it; `page` does what its buttons say. */
  constructor(turn, live, page) {
    Object.assign(this, { turn, live, page });
    const part = (name, tag = "p", properties = {}) => (this[name] = element(tag, { className: name, ...properties }));
    const mine = element("div", { className: "mine" });
    mine.append(part("question", "p", { dir: "auto" }), part("besides", "p"));
    this.question.textContent = turn.input;
    this.besides.textContent = turn.parameters ? JSON.stringify(turn.parameters) : "";
    const edit = button("Edit", () => page.edit(this), { className: "edit", title: "Ask otherwise: this conversation stays as it is" });
    mine.append(element("p", { className: "buttons" }, edit));
    const head = element("header", {}, part("name", "strong"), part("state", "span", { role: "status" }));
    this.name.textContent = turn.agent;
    part("steps", "p");
    part("thoughts", "details");
    this.thoughts.append(element("summary", {}, "Thinking"), element("p", { dir: "auto" }));
    part("answer", "div", { dir: "auto" });
    part("returned", "div");
    part("failure", "p", { role: "alert" });
    part("questions", "div", { role: "group", ariaLabel: "What it asks", ariaLive: "polite" });
    part("away", "p");
    part("quiet", "p");
    part("usage", "p");
    part("replaced", "p");
    this.replaced.textContent = "It was asked again: the conversation goes on with what follows.";
    this.prose = new Prose(this.answer);
    this.cancel = button("Stop", () => page.stop(this), { className: "cancel" });
    this.again = button("Again", () => page.again(this), { className: "again" });
    this.copy = button("Copy", ({ target }) => copy(this.text, target), { className: "copy" });
    this.look = button("What happened", () => page.choose(this, true), { className: "look" });
    this.id = element("code", { className: "id" });
    const footer = element("footer", {}, this.cancel, this.again, this.copy, this.look, this.usage, this.id);
    const theirs = element("div", { className: "theirs" }, head, this.steps, this.thoughts, this.answer, this.returned);
    theirs.append(this.replaced, this.failure, this.questions, this.away, this.quiet, footer);
    this.element = element("article", { className: "turn run", ariaLabel: `Asked: ${turn.input.slice(0, 60)}` }, mine, theirs);
    this.element.addEventListener("pointerdown", () => page.choose(this));
    this.element.addEventListener("focusin", () => page.choose(this));
    this.showReplaced();
    this.draw();
  }

  get isRunning() {
    return Boolean(this.live && !this.live.isOver);
  }

  /** Says that it was asked again, and does not count any more. */
  showReplaced() {
    this.replaced.hidden = !this.turn.isReplaced;
  }

  /** All that it answered. */
  get text() {
    const { recording } = this.live ?? {};
    return recording ? recording.answer.text || recording.ending?.output || "" : (this.turn.answer ?? "");
  }

  /** Shows what has changed, if anything has. */
  draw() {
    const { live } = this;
    if (live && this.isRunning) this.#drawQuiet();
    const version = live ? live.recording.version : 0;
    if (version === this.#drawn) return;
    this.#drawn = version;
    const state = live ? live.state : this.turn.state;
    this.element.dataset.state = state;
    say(this.state, live ? live.words : (WORDS[state] ?? state));
    this.prose.show(this.#answerText());
    const thoughts = live?.recording.thoughts.text ?? "";
    this.thoughts.hidden = !thoughts;
    say(this.thoughts.lastChild, thoughts);
    say(this.failure, this.#why());
    this.away.hidden = !live?.away;
    if (live?.away) say(this.away, `While you were away: ${many(live.away, "event")}.`);
    this.#drawReturned();
    this.#drawSteps();
    this.#drawQuestions();
    const isOver = !this.isRunning;
    if (isOver) this.quiet.hidden = true;
    this.cancel.hidden = isOver;
    this.again.hidden = this.copy.hidden = !isOver;
    this.again.textContent = live?.recording.ending?.retryable ? "Try again" : "Again";
    this.look.hidden = !live;
    say(this.id, (live ? live.runId : this.turn.runId) ?? "");
    say(this.usage, this.#spent());
  }

  /** What it said; of one that said nothing on its way, what it returned. */
  #answerText() {
    const { recording } = this.live ?? {};
    if (!recording) return this.turn.answer ?? "";
    const { answer, ending } = recording;
    const said = answer.text;
    return said || (recording.state === "done" ? ending.output : "");
  }

  /** Shows what it returned, where that is something else than it said. */
  #drawReturned() {
    const { ending, answer } = this.live?.recording ?? {};
    if (ending?.type !== "agent_completed" || this.returned.childElementCount) return;
    const [output, said] = [ending.output.trim(), answer.text.trim()];
    const isOther = output && said && !said.startsWith("…") && output !== said;
    if (isOther) this.returned.append(element("p", {}, "It returned:"), element("pre", { tabIndex: 0, dir: "auto" }, ending.output));
    if (Object.keys(ending.data).length) this.returned.append(details("data", ending.data));
  }

  #why() {
    const { live, turn } = this;
    if (!live) return turn.state === "failed" ? (turn.why ?? "") : "";
    if (live.error) return live.error.message;
    const { ending } = live.recording;
    return ending?.type === "agent_failed" ? ending.message : ending?.type === "agent_cancelled" ? ending.reason : "";
  }

  /** What it did last: tools, and others that it asked. */
  #drawSteps() {
    const { spans = [] } = this.live?.recording ?? {};
    const done = [];
    for (let at = spans.length - 1; at > 0 && done.length < STEPS; at--) {
      const { kind, name, state } = spans[at];
      const mark = { running: "…", failed: " ✕", done: "", cancelled: " (stopped)" }[state];
      if (["tool", "agent", "model", "recovered"].includes(kind)) done.unshift(`${kind === "agent" ? "asked " : ""}${name}${mark}`);
    }
    this.steps.hidden = !done.length;
    say(this.steps, `${spans.length - 1 > done.length ? "… " : ""}${done.join(" · ")}`);
  }

  #drawQuestions() {
    const { questions = new Map() } = this.live?.recording ?? {};
    for (const [id, form] of this.#questions) {
      if (questions.get(id) === form.question) continue;
      form.element.remove();
      this.#questions.delete(id);
    }
    for (const [id, question] of questions) {
      if (this.#questions.has(id)) continue;
      const form = asForm(question, (said) => this.live.answer(id, said));
      this.#questions.set(id, { element: form, question });
      this.questions.append(form);
      // It is not given the focus: what somebody types just then is not to answer it.
      form.scrollIntoView({ block: "nearest" });
    }
  }

  /** Hears of an event as it comes: what became of a question stays. */
  on(event) {
    say(this.question, this.turn.input);
    if (event.type !== "input_answered" || this.#settled.has(event.requestId)) return;
    this.#settled.add(event.requestId);
    const span = this.live.recording.spans.findLast(({ kind, about }) => kind === "question" && about.outcome);
    this.questions.before(element("p", { className: "settled" }, `“${span?.name ?? "A question"}” ${inWords(event)}`));
  }

  #drawQuiet() {
    const { since, isAlive } = this.live.quiet;
    const isWaiting = this.live.recording.questions.size > 0;
    this.quiet.hidden = since < QUIET || isWaiting;
    if (!this.quiet.hidden) say(this.quiet, `${isAlive ? "still working" : "quiet"}, ${Math.round(since / 1000)} s`);
  }

  #spent() {
    const { recording } = this.live ?? {};
    if (!recording?.ending) return "";
    const models = recording.usage.map(
      ({ model, inputTokens = 0, outputTokens = 0, requests = 0 }) =>
        `${model}: ${inputTokens.toLocaleString("en")} tokens in, ${outputTokens.toLocaleString("en")} out, ${requests}×`,
    );
    return [spent(recording.last), ...models].join(" · ");
  }
}

const WORDS = { done: "completed", running: "not followed any more", lost: "lost" };
