// What goes over a run's sockets, in both directions, as it is: frames with their sizes, and what becomes of connections.

const MOST = 500; // of what is kept to be shown
const MOST_TEXT = 2_000_000; // characters of it

/** Keeps what went over a run's sockets. */
export class Wire {
  entries = [];
  sent = { frames: 0, bytes: 0 };
  received = { frames: 0, bytes: 0 };
  version = 0;
  dropped = 0; // entries that are not kept any more
  since = null; // when the first came
  #size = 0;

  /** A WebSocket whose frames are seen here, for runwire.js to use. */
  get WebSocket() {
    const wire = this;
    return class Seen extends WebSocket {
      constructor(...about) {
        super(...about);
        this.addEventListener("message", ({ data }) => wire.frame("received", data));
        this.addEventListener("open", () => wire.note("open", `connected, as ${this.protocol}`));
        this.addEventListener("close", ({ code, reason }) => wire.note("close", `closed with ${code} ${reason}`.trim()));
      }

      send(data) {
        wire.frame("sent", data);
        super.send(data);
      }
    };
  }

  frame(direction, data) {
    const size = typeof data === "string" ? bytesOf(data) : (data.byteLength ?? data.size ?? 0);
    this[direction].frames++;
    this[direction].bytes += size;
    this.#add({ kind: direction, data: direction === "sent" ? withoutToken(data) : data, size });
  }

  note(kind, text) {
    this.#add({ kind, text });
  }

  #add(entry) {
    const at = performance.now();
    this.since ??= at;
    this.entries.push({ at, ...entry });
    this.#size += lengthOf(entry);
    while (this.entries.length > MOST || (this.#size > MOST_TEXT && this.entries.length > 1)) {
      this.#size -= lengthOf(this.entries.shift());
      this.dropped++;
    }
    this.version++;
  }
}

/** What a frame is about, in a few words. */
export function summary(data) {
  if (typeof data !== "string") return "binary";
  const frame = JSON.parse(data);
  if (frame.events) {
    const [first, last] = [frame.events[0], frame.events.at(-1)];
    const kind = Object.keys(first).find((name) => !["seq", "time", "agent"].includes(name));
    return first === last ? `event ${first.seq}: ${kind}` : `events ${first.seq} to ${last.seq}`;
  }
  if (frame.answers) return frame.answers.every(({ code }) => !code) ? "answer taken" : "answer refused";
  const [what] = ["run", "resume", "cancel", "answer", "leave"].filter((name) => name in frame);
  return what ?? (frame.heartbeat ? "the run's id" : "heartbeat");
}

function lengthOf({ data }) {
  return typeof data === "string" ? data.length : (data?.byteLength ?? 0);
}

/** How many bytes a text is on the way. */
function bytesOf(text) {
  return ENCODER.encode(text).length;
}

const ENCODER = new TextEncoder();

/** A frame as it may be shown: a token is for nobody's eyes, and no picture's. */
function withoutToken(data) {
  if (typeof data !== "string" || !data.includes('"accessToken"')) return data;
  return JSON.stringify({ ...JSON.parse(data), accessToken: "…" });
}
