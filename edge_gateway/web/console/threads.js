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
    this.#written = new Set(this.list.map(({ id }) => id));
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
    if (this.#gone.has(thread.id)) return; // it was forgotten while its run went on
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

  /** Takes over what other tabs have written: what is newer there, what they began, and what they forgot. */
  #takeOver(theirs) {
    const stored = new Map(theirs.map((thread) => [thread.id, thread]));
    this.list = this.list.filter(({ id }) => stored.has(id) || !this.#written.has(id));
    for (const thread of this.list) {
      if (stored.has(thread.id)) merge(thread, stored.get(thread.id));
    }
    const known = new Set([...this.#gone, ...this.list.map(({ id }) => id)]);
    this.list.push(...theirs.filter(({ id }) => !known.has(id)));
    this.list = this.list.sort((one, other) => other.changed - one.changed).slice(0, MOST);
    this.#written = new Set(this.list.map(({ id }) => id));
  }

  #written = new Set(); // the ids of those that are in the storage, unless another tab has forgotten them

  /** Writes down what there is. */
  write() {
    this.#takeOver(this.#read());
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

/** Adds to a conversation what another tab knows of it. Turns stay the same objects: their runs go on. */
function merge(thread, { turns, ...other }) {
  const isNewer = other.changed > thread.changed;
  const own = new Map(thread.turns.map((turn) => [turn.runId, turn]));
  for (const turn of turns) {
    if (!own.has(turn.runId)) thread.turns.push(turn);
    else if (isNewer) Object.assign(own.get(turn.runId), turn);
  }
  if (isNewer) Object.assign(thread, other);
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
