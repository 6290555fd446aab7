// What a run has told so far, as a page shows it: what is said, and what happened when. It knows no page.

const MOST_SPANS = 50_000; // of which the oldest that are over go
const MOST_KEPT = 8_000_000; // characters of arguments, results and the like; then the oldest go
const MOST_MARKS = 20_000; // of one span; then each second goes
const LONGEST = 100_000; // characters that are kept of what goes on to be said
const CUT = "…"; // begins a text whose beginning is not kept any more
const TERMINAL = { agent_completed: "done", agent_failed: "failed", agent_cancelled: "cancelled" };

/** What hears of which event: of a kind that is not known yet, nothing does. */
const KINDS = {
  agent_started: "onStarted",
  agent_thinking: "onThinking",
  agent_message: "onMessage",
  tool_executing: "onExecuting",
  tool_completed: "onToolCompleted",
  input_requested: "onRequested",
  input_answered: "onAnswered",
  model_called: "onModel",
  agent_reported: "onReported",
  agent_recovered: "onRecovered",
  agent_completed: "onCompleted",
  agent_failed: "onFailed",
  agent_cancelled: "onCancelled",
};

/** A text that grows. Of one that is too long its beginning goes; what was said in vain can be taken back. */
export class Said {
  text = "";
  #ends = []; // where each piece ended, by its event's number
  #grown = 0;

  add(more, seq = 0) {
    this.text += more;
    this.#grown += more.length;
    this.#ends.push({ seq, at: this.#grown });
    if (this.#ends.length > 2 * LONGEST) this.#ends.splice(0, LONGEST);
    if (this.text.length > 2 * LONGEST) this.text = CUT + this.text.slice(1 - LONGEST); // seldom, since it copies
  }

  /** Takes back what was added after an event, and returns it. */
  takeBack(seq) {
    const before = this.#grown;
    while (this.#ends.at(-1)?.seq > seq) this.#ends.pop();
    this.#grown = this.#ends.at(-1)?.at ?? 0;
    const keep = Math.max(this.text.length - (before - this.#grown), 0);
    const gone = this.text.slice(keep);
    this.text = this.text.slice(0, keep);
    return gone;
  }
}

/** Points in time, bounded: where there are too many, each second goes. */
export class Marks {
  #times = new Float64Array(64);
  #step = 1;
  #seen = 0;
  length = 0;

  add(time) {
    if (this.#seen++ % this.#step) return;
    if (this.length === MOST_MARKS) {
      for (let index = 0; 2 * index < this.length; index++) this.#times[index] = this.#times[2 * index];
      this.length = Math.ceil(this.length / 2);
      this.#step *= 2;
    }
    if (this.length === this.#times.length) {
      const larger = new Float64Array(2 * this.length);
      larger.set(this.#times);
      this.#times = larger;
    }
    this.#times[this.length++] = time;
  }

  at(index) {
    return this.#times[index];
  }
}

/** What has a beginning and an end: an agent, a tool, a question, a call to a model; or only happens. */
class Span {
  end = null;
  state = "running";
  children = [];
  words = null; // marks of what an agent says
  thoughts = null;
  isOpen = true; // whether what is in it is shown

  constructor(kind, name, start, parent) {
    Object.assign(this, { kind, name, start, parent, depth: parent ? parent.depth + 1 : 0 });
    this.about = {};
  }

  get elapsed() {
    return this.end === null ? null : this.end - this.start;
  }
}

/** One run as it was told. `on(event)` for each event, in order. */
export class Recording {
  answer = new Said();
  thoughts = new Said();
  spans = []; // in the order in which they began
  dropped = 0; // that are not kept any more
  events = 0;
  state = "running"; // then done, failed or cancelled
  ending = null; // the terminal event
  usage = [];
  questions = new Map(); // that are open, by their ids
  began = null; // when, by the engine's clock, in milliseconds
  last = 0; // when the newest event was said, since then
  version = 0; // grows with whatever changes
  heard = 0; // when the newest event came, by this page's clock
  #agents = new Map(); // by their paths
  #calls = new Map(); // what is open, by its id
  #kept = []; // spans with what is kept of them, oldest first
  #size = 0;

  on(event) {
    this.events++;
    this.version++;
    this.heard = performance.now();
    const at = milliseconds(event.time);
    this.began ??= at;
    this.last = Math.max(this.last, at - this.began);
    const known = this.#agents.get(event.agent);
    const isAnew = event.type === "agent_started" && known && known.end !== null; // it was asked once before
    const agent = !known || isAnew ? this.#unheard(event, at - this.began) : known;
    if (Object.hasOwn(KINDS, event.type)) this[KINDS[event.type]](event, at - this.began, agent);
  }

  /** The root agent's span, once it has begun. */
  get root() {
    return this.spans[0] ?? null;
  }

  /** How long it takes, or has taken so far. */
  get length() {
    return this.last + (this.state === "running" && this.heard ? performance.now() - this.heard : 0);
  }

  /** Spans in the order in which they are shown: what is in one follows it. */
  rows() {
    const rows = [];
    const show = (span) => {
      rows.push(span);
      if (span.isOpen) for (const child of span.children) show(child);
    };
    for (const span of this.spans) if (!span.parent) show(span);
    return rows;
  }

  onStarted(event, at, agent) {
    agent.start = at;
    this.#keep(agent, { input: event.input });
  }

  onThinking(event, at, agent) {
    (agent.thoughts ??= new Marks()).add(at);
    if (!event.agent.includes("/")) this.thoughts.add(event.delta, event.seq);
    this.#say(agent, "thoughts", event);
  }

  onMessage(event, at, agent) {
    (agent.words ??= new Marks()).add(at);
    if (!event.agent.includes("/")) this.answer.add(event.delta, event.seq);
    this.#say(agent, "says", event);
  }

  onExecuting(event, at, agent) {
    const span = this.#begin("tool", event.tool, at, agent);
    this.#calls.set(event.callId, span);
    this.#keep(span, { arguments: event.arguments });
  }

  onToolCompleted(event, at, agent) {
    const span = this.#calls.get(event.callId) ?? this.#begin("tool", event.tool, at, agent);
    this.#calls.delete(event.callId);
    const failed = event.error !== undefined;
    this.#end(span, at, failed ? "failed" : "done");
    this.#keep(span, failed ? { error: event.error } : { result: event.result });
  }

  onRequested(event, at, agent) {
    const before = this.#calls.get(event.requestId); // asked again after its engine was lost
    const span = before ?? this.#begin("question", event.tool || event.message, at, agent);
    this.#calls.set(event.requestId, span);
    this.questions.set(event.requestId, event);
    this.#keep(span, event.tool ? { tool: event.tool, proposed: event.proposed ?? {} } : { message: event.message });
  }

  onAnswered(event, at, agent) {
    const span = this.#calls.get(event.requestId) ?? this.#begin("question", "a question", at, agent);
    this.#calls.delete(event.requestId);
    this.questions.delete(event.requestId);
    this.#end(span, at, event.outcome === "INPUT_OUTCOME_ACCEPTED" ? "done" : "cancelled");
    this.#keep(span, { outcome: event.outcome, answer: event.content, answeredBy: event.answeredBy });
  }

  onModel(event, at, agent) {
    const span = this.#begin("model", event.model, Math.max(at - thousandths(event.elapsed), 0), agent);
    this.#end(span, at, "done");
    if (event.toFirstWord) (span.words = new Marks()).add(span.start + thousandths(event.toFirstWord));
    const { inputTokens, outputTokens, cachedInputTokens, toFirstWord } = event;
    this.#keep(span, { inputTokens, outputTokens, cachedInputTokens, toFirstWord });
  }

  onReported(event, at, agent) {
    const span = this.#begin("report", event.name, at, agent);
    this.#end(span, at, "done");
    this.#keep(span, { data: event.data });
  }

  /** Takes back what was said since the agent had saved: another engine says it anew. */
  onRecovered(event, at, agent) {
    const vain = this.answer.takeBack(event.checkpointSeq);
    this.thoughts.takeBack(event.checkpointSeq);
    const span = this.#begin("recovered", `attempt ${event.attempt}`, at, agent);
    this.#end(span, at, "done");
    this.#keep(span, { attempt: event.attempt, checkpointSeq: event.checkpointSeq, "said in vain": vain });
  }

  onCompleted(event, at, agent) {
    this.#keep(agent, { output: event.output, data: event.data });
    this.#finish(event, at, agent);
  }

  onFailed(event, at, agent) {
    this.#keep(agent, { reason: event.reason, message: event.message, retryable: event.retryable });
    this.#finish(event, at, agent);
  }

  onCancelled(event, at, agent) {
    this.#keep(agent, { reason: event.reason });
    this.#finish(event, at, agent);
  }

  #finish(event, at, agent) {
    this.#end(agent, at, TERMINAL[event.type]);
    if (event.agent.includes("/")) return;
    this.state = TERMINAL[event.type];
    this.ending = event;
    this.usage = event.usage?.models ?? [];
    if (this.usage.length) this.#keep(agent, { usage: this.usage });
    this.questions.clear();
    for (const span of this.spans) if (span.end === null) this.#end(span, at, "cancelled"); // nobody says so any more
  }

  #unheard({ agent: path }, at) {
    const parent = this.#agents.get(path.split("/").slice(0, -1).join("/")) ?? null;
    const span = this.#begin("agent", path.split("/").at(-1), at, parent);
    this.#agents.set(path, span);
    return span;
  }

  #begin(kind, name, at, parent) {
    const span = new Span(kind, name, at, parent);
    this.spans.push(span);
    parent?.children.push(span);
    if (this.spans.length > this.#most) this.#dropOldest();
    return span;
  }

  #end(span, at, state) {
    span.end = Math.max(at, span.start);
    span.state = state;
  }

  /** Adds to what is kept of a span's words: their end, so far as it is short. */
  #say(span, name, event) {
    const said = ((span.about[name] ?? "") + event.delta).slice(-2000);
    span.about[name] = said;
  }

  #keep(span, about) {
    Object.assign(span.about, about);
    const size = JSON.stringify(about).length;
    this.#kept.push({ span, names: Object.keys(about), size });
    this.#size += size;
    if (this.#size > MOST_KEPT) this.#forget();
  }

  /** Lets go of a tenth of what is kept of spans, of the oldest. */
  #forget() {
    let gone = 0;
    while (this.#size > MOST_KEPT * 0.9 && gone < this.#kept.length - 1) {
      const { span, names, size } = this.#kept[gone++];
      span.about = Object.fromEntries(Object.entries(span.about).filter(([name]) => !names.includes(name)));
      span.about.forgotten = true;
      this.#size -= size;
    }
    this.#kept.splice(0, gone);
  }

  /** Lets go of a tenth of all spans at once: those that are over, have nothing in them, and began first. */
  #dropOldest() {
    const most = MOST_SPANS / 10;
    const gone = new Set();
    const go = (mayGo) => {
      for (const span of this.spans) {
        if (gone.size === most) return;
        if (span.end !== null && span.parent && mayGo(span)) gone.add(span);
      }
    };
    go(({ kind }) => kind !== "agent");
    go(({ children }) => children.every((child) => gone.has(child)));
    this.#most = gone.size === most ? MOST_SPANS : this.spans.length - gone.size + most; // or it would be tried each time
    this.spans = this.spans.filter((span) => !gone.has(span));
    for (const parent of new Set([...gone].map((span) => span.parent))) {
      parent.children = parent.children.filter((span) => !gone.has(span));
    }
    for (const [path, span] of this.#agents) if (gone.has(span)) this.#agents.delete(path);
    this.#kept = this.#kept.filter(({ span }) => !gone.has(span));
    this.#size = this.#kept.reduce((sum, { size }) => sum + size, 0);
    this.dropped += gone.size;
  }

  #most = MOST_SPANS; // spans that there may be until some go
}

/** Milliseconds of a time as events have it, with the parts of one. */
export function milliseconds(time) {
  if (time.slice(0, 19) !== second.text) second = { text: time.slice(0, 19), at: Date.parse(`${time.slice(0, 19)}Z`) };
  return second.at + (time[19] === "." ? parseFloat(`0${time.slice(19, -1)}`) * 1000 : 0);
}

let second = { text: "", at: 0 }; // that was read last: many events are of the same

/** Milliseconds of a duration like "0.25s". */
export function thousandths(duration) {
  return duration ? parseFloat(duration) * 1000 : 0;
}
