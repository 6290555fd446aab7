// Who asks: in development whoever one says to be, and otherwise whom the page that embeds this one has signed in.
//
// A token is held here, and nowhere else: it is kept in no storage, and no snippet shows it.

const PREFIX = "dev:";
const NOBODY = "anonymous";

export class Who {
  token = "";
  isDevelopment = null; // until it is known
  tracePage = ""; // an address with {trace_id} in it, if traces go somewhere where one can look

  /** Says who one is in development, by name. */
  be(name) {
    this.token = !name || name.startsWith(PREFIX) || !this.isDevelopment ? name : PREFIX + name;
  }

  /** Another user, where everybody is believed; the same one elsewhere. */
  as(name) {
    return this.isDevelopment ? Object.assign(new Who(), { token: PREFIX + name, isDevelopment: true }) : this;
  }

  /** By what name conversations are kept. */
  get name() {
    if (this.isDevelopment) return this.token.replace(PREFIX, "") || NOBODY;
    try {
      const claims = JSON.parse(atob(this.token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
      return `${claims.iss ?? ""} ${claims.sub}`.trim();
    } catch {
      return NOBODY;
    }
  }

  /** The token as code may show it. */
  get shown() {
    return this.isDevelopment ? this.token : this.token && "YOUR_TOKEN";
  }

  /** What a new run's trace is called, where traces can be looked at; otherwise it has none of ours. */
  traceparent() {
    if (!this.tracePage) return undefined;
    const hex = (bytes) => Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    return `00-${hex(16)}-${hex(8)}-01`;
  }

  /** Where the trace is that a run is part of. */
  traceOf(traceparent) {
    return traceparent && this.tracePage.replace("{trace_id}", traceparent.split("-")[1]);
  }
}

/** Hears a token from the page that this one is in, each time that it says one; `take` is given it. */
export function hearToken(take) {
  if (parent === window) return;
  addEventListener("message", ({ source, data }) => {
    if (source === parent && typeof data?.runwireToken === "string") take(data.runwireToken);
  });
  parent.postMessage({ runwire: "ready" }, "*"); // it says nothing of anybody
}
