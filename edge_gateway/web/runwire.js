// Runwire's browser client: runs an agent, and gives its events as they happen. Needs no build step, and nothing else.
//
//     for await (const event of run({ agent: "triage", input: "My invoice is wrong" })) console.log(event.type, event);
//
// Works in browsers and in Node 22 (in Node 20 with --experimental-websocket). Types are in runwire.d.ts.

const FIRST_PAUSE = 250; // milliseconds; each further one is twice as long
const LONGEST_PAUSE = 10_000;
const PATIENCE = 60; // seconds without a frame, until it is given up; longer for a run whose window is longer
const SILENCE = 60; // seconds without a frame until a connection is taken for lost; longer where heartbeats are rare
const ASKING = 5; // seconds that a gateway has to say why it refuses us
const SLACK = 5; // seconds that a heartbeat may be late
const BUFFER = 1024 * 1024; // characters that wait for the loop, until no more are taken
const PROTOCOL = "runwire.v1.json";
const LOST = 1006;
const NORMAL = 1000;
const NOT_FOUND = 4005;
const TAKEN = 4010;
const FORBIDDEN = 4007;
const EXISTS = 4006;
const CUT = 4000; // what we close with to cut the connection ourselves
const FULL = [4008, "More came than was taken: read faster, or give the run a resumeWindow."];
const OPEN = 1;
/** What comes after a connection: nothing, another one at once or after a pause, or an error. */
const [OVER, AGAIN, WAIT, RAISE] = ["over", "again", "wait", "raise"];
const STATUS = 4000; // what is added to a gRPC status to make a close code of it
const TRIES = 6; // times that an answer is sent until it is given up
const OUTCOMES = { accepted: "INPUT_OUTCOME_ACCEPTED", declined: "INPUT_OUTCOME_DECLINED" };

/** Close codes after which it makes sense to come back; after all others the same would happen again. */
const COME_BACK = new Set([LOST, 1012, 4008, 4010, 4014]);

/** HTTP's statuses of which the same is true. */
const PASSING = new Set([429, 503]);

/** What proto3 JSON leaves out when it is empty, so that nobody has to ask whether it is there. */
const EMPTY = {
  agent_started: { threadId: "", input: "" },
  agent_thinking: { delta: "" },
  agent_message: { delta: "" },
  tool_executing: { callId: "", tool: "", arguments: {} },
  tool_completed: { callId: "", tool: "" },
  agent_reported: { name: "", data: {} },
  input_requested: { requestId: "", reason: "INPUT_REASON_UNSPECIFIED", message: "", callId: "", tool: "" },
  input_answered: { requestId: "", outcome: "INPUT_OUTCOME_UNSPECIFIED", content: {}, answeredBy: "" },
  agent_recovered: { attempt: 0, checkpointSeq: 0 },
  model_called: { model: "", inputTokens: 0, outputTokens: 0, cachedInputTokens: 0 },
  agent_completed: { output: "", data: {} },
  agent_failed: { reason: "FAILURE_REASON_UNSPECIFIED", message: "", retryable: false },
  agent_cancelled: { reason: "" },
};

const EMPTY_AGENT = { name: "", description: "", isolation: "" };
const EMPTY_RUN = { agent: "", threadId: "", lastSeq: 0, isOver: false };

const TERMINAL = new Set(["agent_completed", "agent_failed", "agent_cancelled"]);

/** Why there are no more events although the run has not ended, or why an answer was not taken. */
export class RunwireError extends Error {
  constructor(code, message) {
    super(message || "The connection was lost.");
    this.name = "RunwireError";
    /** The close code. */
    this.code = code;
    /** Whether the same may succeed when it is tried again. */
    this.retry = COME_BACK.has(code);
    /** What is wrong with each field of an answer. */
    this.violations = {};
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
  return new Run(new Position({ asked, runId: chosen, window: resumeWindow ?? 0 }), options);
}

/** Joins a run again that was begun with a resumeWindow, after the last event that was seen. */
export function resume({ runId, afterSeq = 0, resumeWindow = PATIENCE }, options = {}) {
  return new Run(new Position({ runId, window: resumeWindow, seq: afterSeq, begun: true }), options);
}

/** Answers a question of a run, whoever follows that run. Said twice, it is taken once: so it is sent until it is taken. */
export async function answer({ runId, requestId, outcome = "accepted", content }, options = {}) {
  const frame = { answer: { runId, requestId, outcome: OUTCOMES[outcome] ?? outcome, content } };
  for (let attempt = 1; ; attempt++) {
    const error = await refused(frame, options);
    if (!error) return;
    if (!error.retry || attempt === TRIES) throw error;
    await sleep(paused(attempt), options.signal);
    options.signal?.throwIfAborted();
  }
}

/** Lists one's own runs: those that go on, and those that can still be read, with the questions that they ask. */
export async function runs({ url, token } = {}) {
  const { runs: found = [] } = await listed(beside(url, "runs"), token);
  const question = (asked) => ({ ...EMPTY.input_requested, ...asked });
  return found.map((run) => ({ ...EMPTY_RUN, ...run, questions: (run.questions ?? []).map(question) }));
}

/** Lists the agents that there are. */
export async function agents({ url, token } = {}) {
  const { agents: found = [] } = await listed(beside(url, "agents"), token);
  return found.map((agent) => ({ ...EMPTY_AGENT, ...agent }));
}

async function listed(address, token) {
  const accessToken = typeof token === "function" ? await token() : token;
  const headers = accessToken ? { Authorization: `Bearer ${accessToken}` } : {};
  const response = await fetch(address, { headers }).catch(() => {
    throw new RunwireError(LOST);
  });
  if (response.ok) return response.json();
  const error = new RunwireError(response.status, (await response.text()).trim());
  throw Object.assign(error, { retry: PASSING.has(response.status) });
}

/** Where a caller is in a run, and what comes after a connection that ended. docs/clients.md has it as a table. */
class Position {
  unsure = false; // it was asked for, and may have begun without our hearing of it
  isWanted = true; // it is to begin, if it hasn't
  seq = 0; // of the last event that was given
  begun = false;
  #resuming = false;
  #from = 0; // where the connection was to begin
  #attempt = 0; // since the last frame
  #taken = 0; // how often another took the run over; each time we wait longer to take it back
  #lost = null; // when the connection was lost, until a frame comes again

  constructor(known) {
    Object.assign(this, known);
  }

  /** Tells whether the next connection joins the run, be it to see whether it has begun, or begins it. */
  connect() {
    this.#from = this.seq;
    return (this.#resuming = this.begun || this.unsure);
  }

  /** Whether it is not to begin any more, and hasn't. */
  get isDropped() {
    return !(this.begun || this.unsure || this.isWanted);
  }

  /** The run is asked for, and may begin from now on. */
  ask() {
    this.unsure ||= !this.begun && this.window > 0;
  }

  heard(runId) {
    Object.assign(this, { runId, begun: true, unsure: false });
    this.#attempt = 0;
    this.#lost = null;
  }

  /** Says what comes after a connection that ended without the run's end. */
  after({ code, retry }) {
    const resuming = this.#resuming;
    if (this.isDropped) return OVER;
    if (code === NORMAL) return resuming && this.#from === this.seq ? OVER : RAISE; // all of it was read before
    if (this.unsure && code === EXISTS) {
      this.begun = true; // only we hadn't heard of it
      return AGAIN;
    }
    if (this.unsure && code === NOT_FOUND && resuming) {
      const existed = this.begun;
      this.begun = this.unsure = false; // it had not begun, or was about to
      if (!this.isWanted) return OVER;
      return existed ? this.#patiently() : AGAIN;
    }
    if (!resuming && !retry) this.unsure = false; // it was refused
    if (!retry || (this.begun && !this.window)) return RAISE; // without a window it ended with its connection
    if (code === TAKEN) this.#taken++;
    return this.#patiently();
  }

  /** How often it was tried in vain: the more, the longer is the pause. */
  get vain() {
    return Math.max(this.#attempt - 1, this.#taken);
  }

  #patiently() {
    this.#attempt++;
    this.#lost ??= Date.now();
    return (Date.now() - this.#lost) / 1000 > Math.max(this.window, PATIENCE) ? RAISE : WAIT;
  }
}

/** One run: iterate it once for its events. Breaking out of the loop cancels it. */
class Run {
  #position;
  #options;
  #socket = null;
  #looking = null; // the timer, while what waits is taken
  #visit = null;
  #hasAsked = false;
  #left = new AbortController();
  #stirred = new EventTarget(); // what ends a pause

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

  get #isLeft() {
    return this.#left.signal.aborted;
  }

  /** Answers one of its questions. Resolves once the answer is taken, and rejects with why it is not. */
  answer(requestId, { outcome, content } = {}) {
    const { url, token, signal, WebSocket } = this.#options;
    return answer({ runId: this.runId, requestId, outcome, content }, { url, token, signal, WebSocket });
  }

  /** Stops the run. It still ends with its terminal event, agent_cancelled. */
  cancel() {
    this.#position.isWanted = false;
    this.#stirred.dispatchEvent(new Event("stir"));
    if (this.#position.begun) this.#socket?.send({ cancel: {} });
  }

  /** Leaves it: the loop ends. A run with a resumeWindow goes on for so long, and can be joined again. */
  leave() {
    this.#left.abort();
    this.#stirred.dispatchEvent(new Event("stir"));
    this.#socket?.close(NORMAL);
  }

  /** Cuts the connection, as a bad network would. A run with a resumeWindow goes on, and is joined again. */
  cut() {
    this.#socket?.close(CUT, "cut");
  }

  async *[Symbol.asyncIterator]() {
    const { signal } = this.#options;
    const position = this.#position;
    let state = "connecting";
    let ended = false;
    try {
      while (!ended) {
        signal?.throwIfAborted();
        if (this.#isLeft || position.isDropped) return (ended = true);
        this.#tell(state);
        state = "reconnecting";
        const socket = await this.#open();
        let open = false;
        if (this.#isLeft) return;
        for await (const frame of frames(socket, this.#options)) {
          position.heard(frame.runId);
          if (!open) this.#tell("open");
          if (!open && !position.isWanted) this.cancel();
          open = true;
          if (!frame.events) this.#options.onheartbeat?.();
          for (const raw of frame.events ?? []) {
            signal?.throwIfAborted();
            if (this.#isLeft) return;
            const event = shaped(raw);
            position.seq = event.seq;
            ended = TERMINAL.has(event.type) && !event.agent.includes("/");
            yield event;
            if (ended) return;
          }
        }
        this.#stopLooking();
        signal?.throwIfAborted();
        if (this.#isLeft) return;
        if (socket.isFull && position.window) continue; // what waited was taken: now there is room for what follows
        const error = await this.#why(socket);
        const next = position.after(error);
        ended = next === OVER || next === RAISE; // for us: it may still be joined, by whoever signs in anew, say
        if (next === RAISE) throw error;
        if (next === WAIT) {
          const pause = paused(position.vain);
          this.#tell("waiting", { pause, error });
          await sleep(pause, signal, this.#stirred);
        }
      }
    } finally {
      this.#stopLooking();
      if (!ended && !this.#isLeft) await this.#abandon();
      this.#socket?.close(NORMAL);
      this.#tell("closed");
    }
  }

  async #open() {
    const position = this.#position;
    this.#socket = await this.#connect(position.connect() ? { resume: this.#last() } : { run: position.asked }, {
      onopen: () => position.ask(),
      isLeft: () => this.#isLeft,
      onfull: () => this.#overflow(),
    });
    return this.#socket;
  }

  /** Why a connection ended. A gateway that never let us in is asked once whether it ever will. */
  async #why(socket) {
    const isFirst = !this.#hasAsked;
    this.#hasAsked = true;
    const signals = [this.#left.signal, this.#options.signal].filter(Boolean);
    return (isFirst && (await refusal(socket, this.#options, signals))) || new RunwireError(...socket.end);
  }

  /** Where to read on: after the last that was heard, given or not. */
  #last() {
    const { runId, seq } = this.#position;
    return { runId, afterSeq: this.#socket?.heard ?? seq };
  }

  /** Takes no more for now. With a window it leaves: all that comes until the gateway closes is still heard. */
  #overflow() {
    if (!this.#position.window) return this.#socket.close(CUT, "full");
    this.#socket.leave();
    this.#lookIn();
  }

  #connect(first, heard) {
    return connected(first, this.#options, { ...heard, isPushed: this.#position.window });
  }

  /** Looks in on a run now and then while the loop takes what waits: nobody is at it, and its window would pass. */
  #lookIn() {
    const look = async () => {
      const visit = (this.#visit = await this.#connect({ resume: this.#last() }));
      visit.opened.then(() => visit.leave()); // right behind its first frame: next to nothing comes
      while (this.#looking && (await visit.read()) !== undefined);
      visit.close(NORMAL); // or it would come too late, and take the run over
    };
    this.#looking = setInterval(() => look().catch(() => {}), (this.#position.window * 1000) / 3);
  }

  #stopLooking() {
    clearInterval(this.#looking);
    this.#looking = null;
    this.#visit?.close(NORMAL);
  }

  /** Ends a run that nobody wants any more; one that goes on without us is joined for that. */
  async #abandon() {
    const { begun, unsure, window } = this.#position;
    if (!this.#socket?.isOpen && window && (begun || unsure)) {
      const socket = await this.#open();
      await socket.opened; // its first frame was sent before we hear of it
    }
    this.#socket?.send({ cancel: {} });
  }

  #tell(state, more) {
    this.#options.onconnection?.({ state, runId: this.runId, seq: this.seq, ...more });
  }
}

/** Says why a page's sockets are refused, if they are: a browser tells that to nobody, but what is there may be read. */
async function refusal({ wasOpen }, { url }, signals = []) {
  if (wasOpen || !globalThis.location) return undefined;
  const signal = AbortSignal.any([...signals, AbortSignal.timeout(ASKING * 1000)]);
  const response = await fetch(beside(url, "stream"), { signal }).catch(() => {});
  return response?.status === 403 ? new RunwireError(FORBIDDEN, (await response.text()).trim()) : undefined;
}

/** The address for plain requests of what is beside the stream. */
function beside(url, name) {
  const address = new URL(url ?? "/v1/stream", globalThis.location?.href);
  address.protocol = address.protocol.replace("ws", "http");
  address.pathname = address.pathname.replace(/stream$/, name);
  return address;
}

/** Opens a socket, and sends its first frame. */
async function connected(first, { url, token, traceparent, WebSocket, buffer }, { onopen, onfull, isLeft, isPushed } = {}) {
  const accessToken = typeof token === "function" ? await token() : token;
  const address = url ?? new URL("/v1/stream", location.href.replace(/^http/, "ws"));
  const pushed = isPushed || WebSocket || !globalThis.WebSocketStream;
  const socket = pushed ? new Pushed(address, { WebSocket, buffer, onfull }) : new Pulled(address);
  socket.opened.then(() => {
    if (isLeft?.()) return socket.close(NORMAL);
    if (socket.isOpen) onopen?.();
    socket.send({ accessToken, traceparent, ...first });
  });
  return socket;
}

/** Sends an answer once; returns why it was not taken, or nothing. */
async function refused(frame, options) {
  const socket = await connected(frame, options, { isPushed: true });
  try {
    for await (const { answers } of frames(socket, options)) {
      const [{ code = 0, message, violations = {} }] = answers;
      if (!code) return undefined;
      const error = Object.assign(new RunwireError(STATUS + code, message), { violations });
      error.retry &&= error.code !== TAKEN; // it was answered, and otherwise
      return error;
    }
    options.signal?.throwIfAborted();
    return (await refusal(socket, options)) ?? new RunwireError(...socket.end);
  } finally {
    socket.close(NORMAL);
  }
}

/** Milliseconds until something is tried again. */
function paused(attempt) {
  return Math.min(FIRST_PAUSE * 2 ** attempt, LONGEST_PAUSE) * (0.5 + Math.random() / 2);
}

/** A socket's frames, in order, until it is closed. It is taken for lost when not even heartbeats come any more. */
async function* frames(socket, { signal, onframe, silence }) {
  let patience = silence ?? SILENCE;
  let timer;
  let wake;
  const abort = () => wake();
  signal?.addEventListener("abort", abort);
  try {
    while (!signal?.aborted) {
      const data = await new Promise((resolve) => {
        wake = resolve;
        timer = setTimeout(() => (socket.close(), resolve()), patience * 1000);
        socket.read().then(resolve);
      });
      clearTimeout(timer);
      if (data === undefined) return;
      onframe?.(data);
      const frame = JSON.parse(data);
      if (frame.heartbeat) patience = silence ?? Math.max(SILENCE, 2 * parseFloat(frame.heartbeat) + SLACK);
      yield frame;
    }
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}

/** A WebSocket: what comes waits here until it is read. It is closed before too much of it waits. */
class Pushed {
  end = [LOST, ""]; // how it was closed; by ourselves is like a lost connection
  isFull = false;
  wasOpen = false;
  #socket;
  #waiting = [];
  #size = 0; // characters that wait
  #closed = false;
  #isLeft = false; // nobody may hear any more what is sent
  #wake = () => {};

  constructor(url, { WebSocket = globalThis.WebSocket, buffer = BUFFER, onfull }) {
    const socket = (this.#socket = new WebSocket(url, PROTOCOL));
    socket.addEventListener("open", () => (this.wasOpen = true));
    this.opened = new Promise((resolve) => {
      for (const event of ["open", "close", "error"]) socket.addEventListener(event, resolve);
    });
    socket.addEventListener("error", () => {
      if (this.wasOpen) return;
      this.#closed = true; // Node 20 does not close what it could not open
      this.#wake();
    });
    socket.addEventListener("message", ({ data }) => {
      if (this.#closed) return;
      const isFull = this.#size > buffer; // without this one: a frame may be larger than all that may wait
      this.#waiting.push(data);
      this.#size += data.length;
      this.#wake();
      if (!isFull || this.isFull) return;
      this.isFull = true;
      this.end = FULL;
      onfull?.();
    });
    socket.addEventListener("close", ({ code, reason }) => {
      if (!this.#closed && !this.isFull) this.end = [code === CUT ? LOST : code, reason];
      this.#closed = true;
      this.#wake();
    });
  }

  get isOpen() {
    return !this.#closed && !this.#isLeft && this.#socket.readyState === OPEN;
  }

  /** The position of the last event that waits. */
  get heard() {
    const last = this.#waiting.findLast((data) => JSON.parse(data).events);
    return last && JSON.parse(last).events.at(-1).seq;
  }

  send(frame) {
    if (this.isOpen) this.#socket.send(JSON.stringify(frame));
  }

  /** Lets the gateway close it. A browser that is told to close reads on for a while, and says that all of it arrived. */
  leave() {
    this.send({ leave: {} });
    this.#isLeft = true;
  }

  close(code, reason) {
    this.#closed = true;
    this.#socket.close(code, reason);
    this.#wake();
  }

  /** Waits for a frame; undefined when there will be no more. */
  async read() {
    while (!this.#waiting.length && !this.#closed) await new Promise((resolve) => (this.#wake = resolve));
    const data = this.#waiting.shift();
    this.#size -= data?.length ?? 0;
    return data;
  }
}

/** A WebSocketStream: what isn't read stays where it is, and in the end holds the agent back. */
class Pulled {
  end = [LOST, ""];
  isFull = false;
  isOpen = false;
  wasOpen = false;
  #stream;
  #reader;
  #writer;
  #closed = false;

  constructor(url) {
    this.#stream = new WebSocketStream(url, { protocols: [PROTOCOL] });
    this.opened = this.#stream.opened.then(
      ({ readable, writable }) => {
        this.#reader = readable.getReader();
        this.#writer = writable.getWriter();
        this.isOpen = this.wasOpen = true;
      },
      () => {}, // read() says why
    );
  }

  send(frame) {
    if (this.isOpen) this.#writer.write(JSON.stringify(frame)).catch(() => {}); // read() says why
  }

  close(closeCode, reason) {
    this.isOpen = false;
    this.#closed = true;
    this.#stream.close({ closeCode, reason });
    this.#drain();
  }

  /** Waits for a frame; undefined when there will be no more. */
  async read() {
    await this.opened;
    if (this.#closed) return undefined;
    const data = await this.#take();
    if (data === undefined && !this.#closed) {
      this.isOpen = false;
      const { closeCode, reason } = await this.#stream.closed.catch((error) => error);
      this.end = [closeCode ?? LOST, reason];
    }
    return data;
  }

  /** Reads on for nobody: behind what isn't read, neither we nor the gateway would see that the other closes. */
  async #drain() {
    while ((await this.#take()) !== undefined);
  }

  async #take() {
    return (await this.#reader?.read().catch(() => {}))?.value;
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

function sleep(milliseconds, signal, stirred) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      stirred?.removeEventListener("stir", done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    signal?.addEventListener("abort", done);
    stirred?.addEventListener("stir", done);
  });
}
