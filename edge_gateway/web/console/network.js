// A run's connections, as they are: each frame in both directions, and what became of the sockets.
import { button, element, keepEnd, many, say } from "./elements.js";
import { hex, outline, resumeFrame } from "./binary.js";
import { summary } from "./wire.js";

const ARROWS = { sent: "→", received: "←" };
const PROTOCOL = "runwire.v1.proto";

export class Network {
  #live = null;
  #drawn = 0; // the version that is shown
  #shown = []; // entries that are

  constructor(host, { stream, who }) {
    Object.assign(this, { stream, who });
    this.state = element("p", { className: "state", role: "status" });
    this.counts = element("p", { className: "hint" });
    this.cut = button("Cut connection", () => this.#live.cut(), { className: "cut", title: "The run goes on, and is joined again" });
    this.bytes = button("Read it again as bytes", () => this.#readAgain(), { className: "bytes" });
    this.list = element("ol", { className: "frames", tabIndex: 0, ariaLabel: "Frames, oldest first" });
    this.raw = element("pre", { className: "raw", tabIndex: 0, ariaLabel: "The chosen frame", hidden: true });
    host.append(this.state, this.counts, element("p", { className: "buttons" }, this.cut, this.bytes), this.list, this.raw);
    this.list.addEventListener("click", ({ target }) => this.#choose(target.closest("button")));
  }

  show(live) {
    if (live === this.#live) return;
    this.#live = live;
    this.#drawn = -1;
    this.#shown = [];
    this.list.replaceChildren();
    this.raw.hidden = true;
    this.draw();
  }

  draw() {
    const live = this.#live;
    this.cut.disabled = !live || live.isOver;
    this.bytes.disabled = !live?.isOver;
    this.bytes.title = live?.isOver ? "The same events, as binary frames" : "As soon as the run is over";
    say(this.state, live ? live.words : "No run is chosen.");
    this.list.parentElement.dataset.state = live?.state ?? "";
    if (!live || live.wire.version === this.#drawn || !this.list.offsetParent) return;
    this.#drawn = live.wire.version;
    const { sent, received, entries, dropped, since } = live.wire;
    const earlier = dropped ? ` ${many(dropped, "earlier line")} not kept.` : "";
    this.counts.textContent = `Sent ${many(sent.frames, "frame")}, ${size(sent.bytes)}; received ${many(received.frames, "frame")}, ${size(received.bytes)}.${earlier}`;
    keepEnd(this.list);
    const first = entries[0];
    while (this.#shown.length && this.#shown[0] !== first && !entries.includes(this.#shown[0])) {
      this.#shown.shift();
      this.list.firstChild.remove();
    }
    for (const entry of entries.slice(this.#shown.length)) {
      this.#shown.push(entry);
      this.list.append(this.#entry(entry, since));
    }
  }

  #entry(entry, since) {
    const at = element("span", { className: "time" }, `${((entry.at - since) / 1000).toFixed(2)} s`);
    if (entry.text) return element("li", { className: entry.kind }, at, element("em", {}, entry.text));
    const words = `${ARROWS[entry.kind]} ${summary(entry.data)}, ${size(entry.size)}`;
    const label = `${entry.kind} ${summary(entry.data)}, ${size(entry.size)}`;
    return element("li", { className: entry.kind }, at, button(words, () => {}, { ariaLabel: label }));
  }

  #choose(pressed) {
    if (!pressed) return;
    for (const other of this.list.querySelectorAll("[aria-pressed=true]")) other.ariaPressed = "false";
    pressed.ariaPressed = "true";
    const { data } = this.#shown[[...this.list.children].indexOf(pressed.closest("li"))];
    this.raw.hidden = false;
    if (typeof data === "string") this.raw.textContent = JSON.stringify(JSON.parse(data), null, 2).slice(0, 100_000);
    else this.raw.textContent = `${hex(data)}\n\n${outline(data).slice(0, 2000).join("\n")}`;
  }

  /** Reads the run once more through a socket of our own, which speaks protobuf. */
  #readAgain() {
    const { wire, runId } = this.#live;
    const socket = new WebSocket(this.stream, PROTOCOL);
    socket.binaryType = "arraybuffer";
    const first = resumeFrame({ runId, token: this.who.token });
    socket.addEventListener("open", () => {
      wire.note("open", `connected, as ${socket.protocol}`);
      wire.frame("sent", resumeFrame({ runId })); // as it is shown, without the token
      socket.send(first);
    });
    socket.addEventListener("message", ({ data }) => wire.frame("received", new Uint8Array(data)));
    socket.addEventListener("close", ({ code, reason }) => wire.note("close", `closed with ${code} ${reason}`.trim()));
  }
}

/** Bytes in words. */
export function size(bytes) {
  return bytes < 1000 ? `${bytes} B` : bytes < 1_000_000 ? `${(bytes / 1000).toFixed(1)} kB` : `${(bytes / 1_000_000).toFixed(1)} MB`;
}
