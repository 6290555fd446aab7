// One run that this page follows: what it told, what went over its sockets, and how its connection is.
import { resume, run } from "../runwire.js";
import { Recording, milliseconds } from "./recording.js";
import { Wire } from "./wire.js";

const WINDOW = 60; // seconds that a run outlives this page
const TURN = 8; // milliseconds of events, until others have their turn
const GONE = [4005, 4011]; // the run, or its beginning, is not there any more

export class Live {
  recording = new Recording();
  wire = new Wire();
  connection = "connecting …"; // in words
  error = null; // why there is no more of it, if not because it ended
  isOver = false;
  seq = 0; // of the newest event
  away = 0; // events that came while nobody looked
  onevent = () => {};
  onend = () => {};
  #left = null; // where this user left it, and until when
  #heartbeat = 0;
  #run = null;

  /** `who` knows the token, and the trace that runs are part of. */
  constructor(request, who) {
    this.request = request;
    this.who = who;
    this.traceparent = who.traceparent();
  }

  get runId() {
    return this.#run?.runId ?? this.request.runId;
  }

  /** Begins the run. */
  start() {
    const { traceparent } = this;
    return this.#follow((options) => run({ ...this.request, resumeWindow: WINDOW }, { ...options, traceparent }));
  }

  /** Follows a run that has begun, from its beginning; of it, this user has seen so many events. */
  join(seen = 0) {
    this.isJoined = true;
    this.#left = { at: seen, until: Date.now() };
    return this.#follow((options) => resume({ runId: this.request.runId, resumeWindow: WINDOW }, options));
  }

  /** Hears that nobody looks any more. */
  leave() {
    this.#left = { at: this.seq, until: Infinity };
  }

  /** Hears that somebody looks again. */
  comeBack() {
    if (this.#left) this.#left.until = 0;
    this.recording.version++;
  }

  /** Follows it no longer; it goes on. */
  letGo() {
    this.#run?.leave();
  }

  cancel() {
    this.#run.cancel();
  }

  cut() {
    this.wire.note("cut", "cut by you");
    this.#run.cut();
  }

  answer(requestId, said) {
    return this.#run.answer(requestId, said);
  }

  /** Milliseconds since something was heard of it, and whether a heartbeat said since that it lives. */
  get quiet() {
    const heard = this.recording.heard || this.#began;
    return { since: performance.now() - heard, isAlive: this.#heartbeat > heard };
  }

  #began = performance.now();

  /** What it is, in a word: running, done, failed, cancelled, or lost. */
  get state() {
    return this.error ? "lost" : this.recording.state;
  }

  get words() {
    if (this.error) return this.#why();
    if (this.recording.state !== "running") return this.recording.state === "done" ? "completed" : this.recording.state;
    return this.recording.questions.size ? "waits for you" : this.connection;
  }

  #why() {
    if (GONE.includes(this.error.code)) return "no longer there";
    if (this.error.retry) return "connection lost";
    return this.isJoined || this.seq ? "not to be had" : "not started"; // one that has begun did, whatever is refused now
  }

  async #follow(begin) {
    this.#run = begin({
      token: () => this.who.token || undefined, // a run may outlive the one that it began with
      WebSocket: this.wire.WebSocket,
      onconnection: (connection) => this.#onConnection(connection),
      onheartbeat: () => (this.#heartbeat = performance.now()),
    });
    try {
      let since = performance.now();
      for await (const event of this.#run) {
        this.recording.on(event);
        this.seq = event.seq;
        if (this.#left && event.seq > this.#left.at && milliseconds(event.time) < this.#left.until) this.away++;
        this.onevent(event);
        if (performance.now() - since < TURN) continue;
        await breath(); // however much there is, the page is drawn, and hears its user
        since = performance.now();
      }
    } catch (error) {
      this.error = error;
    } finally {
      this.isOver = true;
      this.recording.version++;
      this.onend();
    }
  }

  #onConnection({ state, pause, seq, error }) {
    const words = {
      connecting: "connecting …",
      open: seq ? `continued at ${seq}` : "running",
      waiting: `reconnecting in ${((pause ?? 0) / 1000).toFixed(1)} s …`,
      reconnecting: "reconnecting …",
    }[state];
    if (words) this.connection = words;
    if (state === "waiting") this.wire.note("waiting", `${error.message} Again in ${(pause / 1000).toFixed(1)} s.`);
    if (state === "open" && seq) this.wire.note("continued", `continued at ${seq}`);
    this.recording.version++;
  }
}

/** Waits until everything else had its turn. */
function breath() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => (port1.close(), resolve());
    port2.postMessage(null);
  });
}
