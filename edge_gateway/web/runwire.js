// Runwire's browser client: runs an agent, and gives its events as they happen. Needs no build step, and nothing else.
//
//     for await (const event of run({ agent: "triage", input: "My invoice is wrong" })) console.log(event.type, event);
//
// Works in browsers and in Node 22 (in Node 20 with --experimental-websocket). Types are in runwire.d.ts.

const FIRST_PAUSE = 250; // milliseconds; each further one is twice as long
const LONGEST_PAUSE = 10_000;
const PATIENCE = 60; // seconds without a frame, until it is given up; longer for a run whose window is longer
const SILENCE = 60; // seconds without a frame, heartbeats among them, until a connection is taken for lost
const LOST = 1006;
const NORMAL = 1000;
const NOT_FOUND = 4005;
const TAKEN = 4010;
const EXISTS = 4006;
const CUT = 4000; // what we close with to cut the connection ourselves
const OPEN = 1;

/** Close codes after which it makes sense to come back; after all others the same would happen again. */
const COME_BACK = new Set([LOST, 1012, 4008, 4010, 4014]);

/** What proto3 JSON leaves out when it is empty, so that nobody has to ask whether it is there. */
const EMPTY = {
  agent_started: { threadId: "", input: "" },
  agent_thinking: { delta: "" },
  agent_message: { delta: "" },
  tool_executing: { callId: "", tool: "", arguments: {} },
  tool_completed: { callId: "", tool: "" },
  agent_reported: { name: "", data: {} },
  agent_completed: { output: "", data: {} },
  agent_failed: { reason: "FAILURE_REASON_UNSPECIFIED", message: "", retryable: false },
  agent_cancelled: { reason: "" },
};

const TERMINAL = new Set(["agent_completed", "agent_failed", "agent_cancelled"]);

/** Why there are no more events although the run has not ended. */
export class RunwireError extends Error {
  constructor(code, message) {
    super(message || "The connection was lost.");
    this.name = "RunwireError";
    /** The close code. */
    this.code = code;
    /** Whether the same may succeed when it is tried again. */
    this.retry = COME_BACK.has(code);
  }
}

/** Runs an agent. The run begins when its events are first asked for. */
export function run(request, options = {}) {
  const { agent, input, threadId, runId, history, parameters, resumeWindow, ...unknown } = request;
  const [other] = Object.keys(unknown);
  if (other) throw new TypeError(`A run has no ${other}.`);
  const window = resumeWindow ? `${resumeWindow}s` : undefined;
  const chosen = runId ?? (resumeWindow ? uuid() : undefined);
  const asked = { agent, input, threadId, runId: chosen, history, parameters, resumeWindow: window };
  return new Run({ asked, begun: false, unsure: false, runId: chosen, window: resumeWindow ?? 0, seq: 0 }, options);
}

/** Joins a run again that was begun with a resumeWindow, after the last event that was seen. */
export function resume({ runId, afterSeq = 0 }, options = {}) {
  return new Run({ asked: null, begun: true, unsure: false, runId, window: PATIENCE, seq: afterSeq }, options);
}

/** One run: iterate it once for its events. Breaking out of the loop cancels it. */
class Run {
  #position;
  #options;
  #socket = null;
  #cancelling = false;

  constructor(position, options) {
    this.#position = position;
    this.#options = options;
  }

  /** The run's id, once it is known. */
  get runId() {
    return this.#position.runId;
  }

  /** The position of the last event that was given. */
  get seq() {
    return this.#position.seq;
  }

  /** Stops the run. It still ends with its terminal event, agent_cancelled. */
  cancel() {
    this.#cancelling = true;
    if (this.#position.begun) this.#send({ cancel: {} });
  }

  /** Cuts the connection, as a bad network would. A run with a resumeWindow goes on, and is joined again. */
  cut() {
    this.#socket?.close(CUT, "cut");
  }

  async *[Symbol.asyncIterator]() {
    const { signal } = this.#options;
    const position = this.#position;
    let attempt = 0; // since the last frame
    let lost = null; // when the connection was lost, until a frame comes again
    let taken = 0; // how often another took the run over; each time we wait longer to take it back
    let ended = false;
    try {
      while (!ended) {
        signal?.throwIfAborted();
        this.#tell(attempt ? "reconnecting" : "connecting");
        const frames = await this.#open();
        let open = false;
        for await (const frame of frames) {
          position.runId = frame.runId;
          position.begun = true;
          position.unsure = false;
          attempt = 0;
          lost = null;
          if (!open) this.#tell("open");
          if (!open && this.#cancelling) this.cancel();
          open = true;
          if (!frame.events) this.#options.onheartbeat?.();
          for (const raw of frame.events ?? []) {
            const event = shaped(raw);
            position.seq = event.seq;
            ended = TERMINAL.has(event.type) && !event.agent.includes("/");
            yield event;
            if (ended) return;
          }
        }
        if (this.#cancelling && !position.begun && !position.unsure) return;
        signal?.throwIfAborted();
        if (frames.resuming && frames.end[0] === NORMAL) return (ended = true); // it is over, and all of it was read
        const error = new RunwireError(...frames.end);
        if (frames.resuming && position.unsure && error.code === NOT_FOUND) {
          position.unsure = false; // it had not begun
          if (this.#cancelling) return;
          continue;
        }
        if (position.unsure && error.code === EXISTS) {
          position.begun = true; // it had begun, only we hadn't heard of it
          continue;
        }
        if (!frames.resuming && !error.retry) position.unsure = false; // it was refused
        lost ??= Date.now();
        if (error.code === TAKEN) taken++;
        const waited = (Date.now() - lost) / 1000;
        const over = position.begun && !position.window; // without a window it ended with its connection
        if (!error.retry || over || waited > Math.max(position.window, PATIENCE)) throw error;
        const pause = Math.min(FIRST_PAUSE * 2 ** Math.max(attempt++, taken), LONGEST_PAUSE) * (0.5 + Math.random() / 2);
        this.#tell("waiting", { pause, error });
        await sleep(pause, signal);
      }
    } finally {
      if (!ended) await this.#abandon();
      this.#socket?.close(NORMAL);
      this.#tell("closed");
    }
  }

  async #open() {
    const { url, token, WebSocket = globalThis.WebSocket } = this.#options;
    const accessToken = typeof token === "function" ? await token() : token;
    const position = this.#position;
    const { asked, runId, seq } = position;
    // A connection may be lost between the run's beginning and our hearing of it: whether there is a run is asked first.
    const resuming = position.begun || position.unsure;
    const socket = new WebSocket(url ?? new URL("/v1/stream", location.href.replace(/^http/, "ws")), "runwire.v1.json");
    const frame = resuming ? { resume: { runId, afterSeq: seq } } : { run: asked };
    socket.addEventListener("open", () => {
      position.unsure ||= !position.begun && position.window > 0;
      this.#send({ accessToken, ...frame });
    });
    this.#socket = socket;
    const frames = new Frames(socket, this.#options); // at once, or it could be closed before anybody listens
    frames.resuming = resuming;
    return frames;
  }

  /** Ends a run that nobody wants any more; one that goes on without us is joined for that. */
  async #abandon() {
    const { begun, unsure, window } = this.#position;
    if (this.#socket?.readyState !== OPEN && window && (begun || unsure)) {
      const frames = await this.#open();
      const socket = this.#socket;
      const settled = (name) => new Promise((resolve) => socket.addEventListener(name, resolve));
      await Promise.race([settled("open"), settled("close")]); // its first frame was sent before we hear of it
      frames.stop();
    }
    this.#send({ cancel: {} });
  }

  #tell(state, more) {
    this.#options.onconnection?.({ state, runId: this.runId, seq: this.seq, ...more });
  }

  #send(frame) {
    if (this.#socket?.readyState === OPEN) this.#socket.send(JSON.stringify(frame));
  }
}

/** A socket's frames, in order, until it is closed; then `end` says how. */
class Frames {
  end = [LOST, ""];
  #waiting = [];
  #closed = false;
  #wake = () => {};

  #timer;

  constructor(socket, { signal, onframe, silence = SILENCE }) {
    this.socket = socket;
    socket.addEventListener("message", ({ data }) => {
      this.#watch(silence);
      onframe?.(data);
      this.#waiting.push(data);
      this.#wake();
    });
    socket.addEventListener("close", ({ code, reason }) => {
      if (!this.#closed) this.end = [code === CUT ? LOST : code, reason];
      this.#closed = true;
      this.#wake();
    });
    signal?.addEventListener("abort", this.#abort);
    this.signal = signal;
    this.#watch(silence);
  }

  #abort = () => this.#wake();

  /** Takes a connection for lost on which nothing comes any more: not even the heartbeats of a quiet run. */
  #watch(silence) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#closed = true;
      this.socket.close();
      this.#wake();
    }, silence * 1000);
  }

  async *[Symbol.asyncIterator]() {
    try {
      for (;;) {
        while (this.#waiting.length) yield JSON.parse(this.#waiting.shift());
        if (this.#closed || this.signal?.aborted) return;
        await new Promise((resolve) => (this.#wake = resolve));
      }
    } finally {
      this.stop();
    }
  }

  stop() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.signal?.removeEventListener("abort", this.#abort);
  }
}

/** Gives an event the name of its kind as `type`, and its fields beside it. */
function shaped({ seq, time, agent = "", ...kind }) {
  const [name] = Object.keys(kind);
  const type = (name ?? "unknown").replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return { ...EMPTY[type], ...kind[name], type, seq, time, agent };
}

/** Makes a UUID. Browsers have crypto.randomUUID only where the page came from https or from this machine. */
function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

function sleep(milliseconds, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    signal?.addEventListener("abort", done);
  });
}
