// Conversations, kept in this browser: what was asked and answered, for one user. No token is among it.
import { local } from "./storage.js";

const MOST = 30; // conversations, of which the oldest goes
const MOST_TURNS = 100; // of one
const LONGEST = 20_000; // characters that are kept of an answer
const MOST_TEXT = 2_000_000; // characters of all of it
const HISTORY = 500_000; // characters that are sent along of what was said before

export class Threads {
  list = []; // newest first
  #key;
  #storage;
  #gone = new Set(); // the ids of those that were removed here

  constructor(user, storage = local) {
    this.user = user;
    this.#key = `runwire ${user}`;
    this.#storage = storage;
    this.list = this.#read();
  }

  #read() {
    try {
      return JSON.parse(this.#storage.getItem(this.#key) ?? "[]");
    } catch {
      return []; // it is not ours, or of another time
    }
  }

  /** Begins a conversation; nothing is kept of one in which nothing was said. */
  begin(agent = "", turns = []) {
    return { id: crypto.randomUUID?.() ?? String(Math.random()).slice(2), title: "", agent, parameters: undefined, turns };
  }

  /** Keeps a conversation as it is now. */
  keep(thread) {
    thread.title ||= (thread.turns[0]?.input ?? "").slice(0, 80);
    thread.changed = Date.now();
    this.list = [thread, ...this.list.filter(({ id }) => id !== thread.id)].slice(0, MOST);
    this.write();
  }

  remove(thread) {
    this.#gone.add(thread.id);
    this.list = this.list.filter(({ id }) => id !== thread.id);
    this.write();
  }

  forget() {
    for (const { id } of this.list) this.#gone.add(id);
    this.list = [];
    this.#storage.removeItem(this.#key);
  }

  /** Writes down what there is. */
  write() {
    const known = new Set([...this.#gone, ...this.list.map(({ id }) => id)]);
    const others = this.#read().filter(({ id }) => !known.has(id)); // that another tab has begun
    this.list = [...this.list, ...others].sort((one, other) => other.changed - one.changed).slice(0, MOST);
    const short = ({ turns, ...thread }) => ({ ...thread, turns: turns.slice(-MOST_TURNS).map(shortened) });
    const all = this.list.map(short);
    let written = JSON.stringify(all);
    while (written.length > MOST_TEXT && all.length > 1) {
      all.pop();
      written = JSON.stringify(all);
    }
    try {
      this.#storage.setItem(this.#key, written);
    } catch {
      // there is no room: a page that is loaded again won't know of it
    }
  }
}

/** What was said before a turn, as an agent is told of it: its newest part, where it is much. */
export function historyOf(turns) {
  const said = turns
    .filter(({ state, isReplaced }) => state === "done" && !isReplaced)
    .flatMap(({ input, answer }) => [
      { role: "ROLE_USER", text: input },
      { role: "ROLE_ASSISTANT", text: answer ?? "" },
    ]);
  let size = 0;
  const first = said.findLastIndex(({ text }) => (size += text.length) > HISTORY);
  return said.slice(first + 1);
}

function shortened({ answer, ...turn }) {
  return { ...turn, answer: (answer ?? "").slice(0, LONGEST) };
}
