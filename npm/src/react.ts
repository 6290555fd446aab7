// A run for React: what it has said so far, what it does, and what it asks. Works with React 18 and 19.
//
//     const { text, state, start, cancel } = useRun();
//     <button onClick={() => start({ agent: "triage", input: "My invoice is wrong" })}>Ask</button> {text}

import { useCallback, useEffect, useState, useSyncExternalStore } from "react";
import { isRoot } from "./event.js";
import type { Answer, Connection, Event, Options, Question, Run, RunRequest, RunwireError } from "./runwire.js";
import { resume, run } from "./runwire.js";

/** How a run is: not begun, its connection's state, or how it ended; `lost` when nothing more can be known of it. */
export type RunState =
  | "idle"
  | "connecting"
  | "open"
  | "waiting"
  | "reconnecting"
  | "completed"
  | "failed"
  | "cancelled"
  | "lost";

/** A call of a tool. Exactly one of `result` and `error` is there once it is done. */
export interface ToolCall {
  callId: string;
  tool: string;
  agent: string;
  arguments: Record<string, unknown>;
  isDone: boolean;
  result?: unknown;
  error?: string;
}

export interface Progress {
  runId: string | undefined;
  state: RunState;
  /** All that happened, in order. */
  events: readonly Event[];
  /** The root agent's answer so far, without what is void. */
  text: string;
  /** Its reasoning so far. */
  reasoning: string;
  tools: readonly ToolCall[];
  /** The questions that are open, oldest first. */
  questions: readonly Question[];
  /** Why nothing more comes, of a run that is lost; why it waits, of one that does. */
  error: RunwireError | undefined;
}

export interface RunControls {
  /** Begins a run; one that goes on is cancelled. */
  start(request: RunRequest): void;
  /** Joins a run that was begun with a `resumeWindow`, by whichever page. */
  join(position: { runId: string; afterSeq?: number; resumeWindow?: number }): void;
  /** Stops it. It still ends with its terminal event. */
  cancel(): void;
  /** Answers one of its questions. */
  answer(requestId: string, answer?: Answer): Promise<void>;
}

/** What `useRun` wants to know of connections; what it hears of them it shows as `state`. */
export type RunOptions = Omit<Options, "onconnection">;

type Said = Extract<Event, { type: "agent_message" | "agent_thinking" }>;

const FRAME = 16; // milliseconds between two times that a component hears what is new
const GOING: ReadonlySet<RunState> = new Set(["connecting", "open", "waiting", "reconnecting"]);
const NOTHING: Progress = {
  runId: undefined,
  state: "idle",
  events: [],
  text: "",
  reasoning: "",
  tools: [],
  questions: [],
  error: undefined,
};

/**
 * Follows one run at a time. The component that is unmounted leaves its run: with a `resumeWindow` it goes on, and can be
 * joined by another; without one it ends.
 */
export function useRun(options: RunOptions = {}): Progress & RunControls {
  const [followed] = useState(() => new Followed());
  followed.options = options;
  useEffect(() => followed.mounted(), [followed]);
  const progress = useSyncExternalStore(followed.subscribe, followed.snapshot, followed.snapshot);
  const start = useCallback((request: RunRequest) => followed.start(request), [followed]);
  const join = useCallback<RunControls["join"]>((position) => followed.join(position), [followed]);
  const cancel = useCallback(() => followed.cancel(), [followed]);
  const answer = useCallback<RunControls["answer"]>((id, said) => followed.answer(id, said), [followed]);
  return { ...progress, start, join, cancel, answer };
}

/** Follows a run, and tells whoever renders it: a screen shows no more than one of all that come together. */
class Followed {
  options: RunOptions = {};
  #run: Run | undefined;
  #events: Event[] = [];
  #said: Said[] = []; // by the root agent, without what is void
  #progress = NOTHING;
  #shown = NOTHING;
  #listeners = new Set<() => void>();
  #isTelling = false;
  #isGone = false;
  #leaving: ReturnType<typeof setTimeout> | undefined;

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  snapshot = (): Progress => this.#shown;

  start(request: RunRequest): void {
    if (this.#isGone) return;
    const begun = run(request, this.#connection());
    this.cancel();
    this.#follow(begun);
  }

  join(position: { runId: string; afterSeq?: number; resumeWindow?: number }): void {
    if (this.#isGone) return;
    const joined = resume(position, this.#connection());
    this.leave();
    this.#follow(joined);
  }

  cancel(): void {
    this.#run?.cancel();
  }

  /** Hears of its component, and returns what is to be called when that is gone. StrictMode only plays that, at first. */
  mounted(): () => void {
    clearTimeout(this.#leaving);
    this.#isGone = false;
    const leave = () => {
      this.#isGone = true;
      this.leave();
    };
    return () => void (this.#leaving = setTimeout(leave));
  }

  leave(): void {
    this.#run?.leave();
    this.#run = undefined;
  }

  async answer(requestId: string, answer?: Answer): Promise<void> {
    if (!this.#run) throw new Error("There is no run.");
    await this.#run.answer(requestId, answer);
  }

  #connection(): Options {
    const onconnection = ({ state, runId, error }: Connection) => {
      if (state !== "closed" && this.#run && this.#run.runId === runId) this.#tell({ state, error });
    };
    return { ...this.options, onconnection };
  }

  async #follow(followed: Run): Promise<void> {
    this.#run = followed;
    this.#events = [];
    this.#said = [];
    this.#progress = { ...NOTHING, state: "connecting", runId: followed.runId };
    this.#tell({});
    try {
      for await (const event of followed) if (this.#run === followed) this.#take(event);
      const goesOn = GOING.has(this.#progress.state);
      if (this.#run === followed && goesOn) this.#tell({ state: "lost" }); // all of it was read before
    } catch (error) {
      if (this.#run === followed) this.#tell({ state: "lost", error: error as RunwireError });
    }
  }

  #take(event: Event): void {
    this.#events.push(event);
    this.#tell({ runId: this.#run?.runId, ...changed(this.#progress, event) });
    if (!isRoot(event)) return;
    if (event.type === "agent_message" || event.type === "agent_thinking") this.#said.push(event);
    if (event.type !== "agent_recovered") return;
    this.#said = this.#said.filter(({ seq }) => seq <= event.checkpointSeq);
    const joined = (type: Said["type"]) => this.#said.map((each) => (each.type === type ? each.delta : "")).join("");
    this.#tell({ text: joined("agent_message"), reasoning: joined("agent_thinking") });
  }

  #tell(news: Partial<Progress>): void {
    this.#progress = { ...this.#progress, ...news };
    if (this.#isTelling) return;
    this.#isTelling = true;
    setTimeout(() => {
      this.#isTelling = false;
      this.#shown = { ...this.#progress, events: this.#events.slice() };
      for (const listener of this.#listeners) listener();
    }, FRAME);
  }
}

/** What an event changes. */
function changed(progress: Progress, event: Event): Partial<Progress> {
  const without = (id: string) => progress.questions.filter(({ requestId }) => requestId !== id);
  switch (event.type) {
    case "agent_message":
      return isRoot(event) ? { text: progress.text + event.delta } : {};
    case "agent_thinking":
      return isRoot(event) ? { reasoning: progress.reasoning + event.delta } : {};
    case "tool_executing": {
      const { callId, tool, agent, arguments: given } = event;
      return { tools: [...progress.tools, { callId, tool, agent, arguments: given, isDone: false }] };
    }
    case "tool_completed":
      return { tools: progress.tools.map((call) => (call.callId === event.callId ? done(call, event) : call)) };
    case "input_requested":
      return { questions: [...without(event.requestId), event] };
    case "input_answered":
      return { questions: without(event.requestId) };
    case "agent_completed":
      return isRoot(event) ? { state: "completed", questions: [], text: progress.text || event.output } : {};
    case "agent_failed":
      return isRoot(event) ? { state: "failed", questions: [] } : {};
    case "agent_cancelled":
      return isRoot(event) ? { state: "cancelled", questions: [] } : {};
    default:
      return {};
  }
}

function done(call: ToolCall, { result, error }: { result?: unknown; error?: string }): ToolCall {
  return { ...call, isDone: true, ...(error === undefined ? { result } : { error }) };
}
