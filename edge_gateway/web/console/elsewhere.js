// One's runs that go on without this page: what they ask can be answered here, and they can be shown here.
import { answer, runs as listed } from "../runwire.js";
import { button, element } from "./elements.js";
import { asForm } from "./questions.js";

export class Elsewhere {
  #entries = new Map(); // by their runs' ids
  #host;

  /** `isHere` says whether this page follows a run; `show` is given one that is to be shown here. */
  constructor(host, { who, isHere, show }) {
    this.#host = host;
    Object.assign(this, { who, isHere, show });
  }

  /** Looks which there are. */
  async find() {
    const { token } = this.who;
    const found = await listed({ token: token || undefined }).catch(() => []);
    if (token !== this.who.token) return; // by now it is another user's
    const there = found.filter(({ runId, isOver }) => !isOver && !this.isHere(runId));
    for (const runId of [...this.#entries.keys()]) if (!there.some((each) => each.runId === runId)) this.#drop(runId);
    for (const each of there) this.#draw(each);
    this.#host.hidden = this.#entries.size === 0;
  }

  clear() {
    for (const runId of [...this.#entries.keys()]) this.#drop(runId);
  }

  #drop(runId) {
    this.#entries.get(runId).remove();
    this.#entries.delete(runId);
    this.#host.hidden = this.#entries.size === 0;
  }

  #draw({ runId, agent, started, questions }) {
    const entry = this.#entries.get(runId) ?? this.#begin({ runId, agent, started });
    for (const form of entry.querySelectorAll("form")) {
      if (!questions.some(({ requestId }) => requestId === form.dataset.request)) form.remove();
    }
    for (const question of questions) {
      const { requestId } = question;
      if (entry.querySelector(`[data-request="${CSS.escape(requestId)}"]`)) continue;
      const { token } = this.who;
      entry.append(asForm(question, (said) => answer({ runId, requestId, ...said }, { token: token || undefined })));
    }
  }

  #begin({ runId, agent, started }) {
    const since = new Date(started).toLocaleTimeString();
    const join = () => {
      this.#drop(runId);
      this.show({ runId, agent });
    };
    const entry = element("li", {}, element("span", {}, `${agent}, since ${since} `), button("Show here", join));
    this.#entries.set(runId, entry);
    this.#host.querySelector("ul").append(entry);
    return entry;
  }
}
