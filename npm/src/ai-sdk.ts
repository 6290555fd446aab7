// A Runwire agent for the AI SDK's `useChat`.
//
//     const chat = useChat({
//       transport: new RunwireChatTransport({ agent: "triage" }),
//       sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses,
//     });
//
// Nothing is asked of a server but Runwire's gateway.

import type { ChatTransport, UIMessage, UIMessageChunk } from "ai";
import type { Asked } from "./event.js";
import { isApproval, isEnd, isRoot, said, WINDOW } from "./event.js";
import type { Place } from "./place.js";
import { read, written } from "./place.js";
import type { Answer, Event, Message, Options, Run } from "./runwire.js";
import { answer, resume, run, runs, RunwireError } from "./runwire.js";

export interface RunwireChatOptions extends Options {
  agent: string;
  /** What else the agent understands. What a message is sent with as `body` is added. */
  parameters?: Record<string, unknown>;
  /** Seconds that a run outlives its page, and waits for an answer behind a page that is gone. 600 unless said. */
  resumeWindow?: number;
  /** Where it is kept which run a chat has, so that a page that is loaded again finds it: sessionStorage unless said. */
  storage?: Pick<Storage, "getItem" | "setItem" | "removeItem">;
}

type Parts = UIMessage["parts"];
type Part = Parts[number];
type Chunk = UIMessageChunk;
type Approval = { state?: string; toolCallId?: string; approval?: { id: string; approved?: boolean } };

export class RunwireChatTransport<MESSAGE extends UIMessage = UIMessage> implements ChatTransport<MESSAGE> {
  /** A chat that is reconnected gets its message from the beginning, and puts it where the old one was. */
  readonly resumeStreamIsReplay = true;
  #options: RunwireChatOptions;
  #told = new Map<string, Told>(); // of runs that are not over, by their ids

  constructor(options: RunwireChatOptions) {
    this.#options = options;
  }

  sendMessages: ChatTransport<MESSAGE>["sendMessages"] = async ({ chatId, messages, abortSignal, body }) => {
    const connection = this.#connection(abortSignal);
    const approvals = messages.at(-1)?.parts.flatMap(answered) ?? [];
    const newest = approvals.map(({ place }) => place).sort((one, other) => other.seq - one.seq)[0];
    if (newest) {
      const { runId, seq } = newest;
      const calls = new Map(approvals.map(({ place, toolCallId }) => [place.requestId, toolCallId]));
      for (const { outcome, place } of approvals) await answer({ ...place, outcome }, connection).catch(settledElsewhere);
      const told = this.#told.get(runId) ?? new Told(runId, calls);
      const joined = resume({ runId, afterSeq: seq, resumeWindow: this.#window }, connection);
      return this.#stream(chatId, joined, told, ({ requestId }) => !calls.has(requestId));
    }
    const { agent, parameters } = this.#options;
    const input = messages.at(-1)?.role === "user" ? textOf(messages.at(-1)) : "";
    const history = messages.slice(0, -1).flatMap(saidBefore);
    const asked = { agent, input, history, threadId: chatId, resumeWindow: this.#window };
    const begun = run({ ...asked, parameters: { ...parameters, ...body } }, connection);
    this.#storage?.setItem(key(chatId), begun.runId ?? "");
    return this.#stream(chatId, begun, new Told(begun.runId ?? ""), () => true);
  };

  reconnectToStream: ChatTransport<MESSAGE>["reconnectToStream"] = async ({ chatId, abortSignal }) => {
    const runId = this.#storage?.getItem(key(chatId));
    if (!runId) return null;
    const info = (await runs(this.#options)).find((each) => each.runId === runId);
    if (!info) {
      this.#storage?.removeItem(key(chatId));
      return null;
    }
    const open = new Set(info.questions.map(({ requestId }) => requestId));
    const isOpen = ({ seq, requestId }: Asked) => seq > info.lastSeq || open.has(requestId);
    const joined = resume({ runId, resumeWindow: this.#window }, this.#connection(abortSignal));
    return this.#stream(chatId, joined, new Told(runId), isOpen);
  };

  /** Answers a question that is no approval: a `data-question` part has its id, and the schema of what is wanted. */
  async answer(questionId: string, reply: Answer): Promise<void> {
    const place = read(questionId);
    if (!place) throw new TypeError(`${questionId} is no question of Runwire's.`);
    await answer({ ...place, ...reply }, this.#options);
  }

  get #window(): number {
    return this.#options.resumeWindow ?? WINDOW;
  }

  get #storage(): RunwireChatOptions["storage"] {
    return this.#options.storage ?? globalThis.sessionStorage;
  }

  #forget(chatId: string, runId: string): void {
    this.#told.delete(runId);
    if (this.#storage?.getItem(key(chatId)) === runId) this.#storage.removeItem(key(chatId));
  }

  #connection(signal: AbortSignal | undefined): Options {
    return signal ? { ...this.#options, signal } : this.#options;
  }

  /** Gives the run's events as chunks, no faster than they are taken: to its end, or until it waits for an approval. */
  #stream(
    chatId: string,
    followed: Run,
    told: Told,
    isOpen: (asked: Asked) => boolean,
  ): ReadableStream<Chunk> {
    this.#told.set(told.runId, told);
    const events = followed[Symbol.asyncIterator]();
    let isOver = false;
    const next = async (): Promise<Chunk[]> => {
      const { value: event } = await events.next();
      if (!event) {
        isOver = true;
        return [];
      }
      const waits = event.type === "input_requested" && isApproval(event) && isOpen(event);
      isOver = waits || isEnd(event);
      if (waits) followed.leave(); // it needs nobody while it waits for its answer
      else if (isOver) this.#forget(chatId, told.runId);
      return waits ? [...told.chunks(event), { type: "finish", finishReason: "tool-calls" }] : told.chunks(event);
    };
    return new ReadableStream<Chunk>({
      async pull(controller) {
        try {
          let chunks: Chunk[] = [];
          while (!chunks.length && !isOver) chunks = await next();
          for (const chunk of chunks) controller.enqueue(chunk);
          if (isOver) controller.close();
        } catch (error) {
          controller.enqueue(wrong(error));
          controller.close();
        }
      },
      cancel: () => followed.leave(),
    });
  }
}

/** What a run has told, as the AI SDK has it. */
class Told {
  readonly runId: string;
  #open: { type: "text" | "reasoning"; id: string; agent: string } | undefined;
  #parts = 0;
  #said: { seq: number; delta: string }[] = [];
  #calls: Map<string, string>; // which call an approval is about
  #isDone = new Map<string, boolean>(); // calls that the message has

  constructor(runId: string, calls = new Map<string, string>()) {
    this.runId = runId;
    this.#calls = calls;
    for (const toolCallId of calls.values()) this.#isDone.set(toolCallId, false);
  }

  chunks(event: Event): Chunk[] {
    switch (event.type) {
      case "agent_started":
        if (isRoot(event)) return [{ type: "start", messageId: this.runId, messageMetadata: { runId: this.runId } }];
        return [...this.#closed(), data("agent", { agent: event.agent, state: "started" }, event.agent)];
      case "agent_thinking":
        return this.#piece("reasoning", event);
      case "agent_message":
        if (!isRoot(event)) return [];
        this.#said.push(event);
        return this.#piece("text", event);
      case "tool_executing":
        return [...this.#closed(), ...this.#call(event.callId, event.tool, event.arguments)];
      case "tool_completed":
        return [...this.#closed(), ...this.#result(event)];
      case "agent_reported":
        return [...this.#closed(), data(event.name, event.data)];
      case "input_requested":
        return [...this.#closed(), ...this.#question(event)];
      case "input_answered":
        return this.#answered(event);
      case "agent_recovered":
        return [...this.#closed(), this.#recovered(event)];
      case "model_called":
        return [];
      default:
        return isRoot(event) ? [...this.#closed(), ...this.#settled(), ...this.#end(event)] : [data("agent", ended(event), event.agent)];
    }
  }

  #piece(type: "text" | "reasoning", { agent, delta }: { agent: string; delta: string }): Chunk[] {
    const opened: Chunk[] = [];
    if (this.#open?.type !== type || this.#open.agent !== agent) {
      opened.push(...this.#closed());
      this.#open = { type, id: `${type}-${++this.#parts}`, agent };
      opened.push({ type: `${type}-start`, id: this.#open.id, providerMetadata: { runwire: { agent } } });
    }
    return [...opened, { type: `${type}-delta`, id: this.#open.id, delta }];
  }

  #closed(): Chunk[] {
    const open = this.#open;
    this.#open = undefined;
    return open ? [{ type: `${open.type}-end`, id: open.id }] : [];
  }

  #question(event: Asked): Chunk[] {
    const id = written({ ...event, runId: this.runId, isApproval: isApproval(event) });
    if (!isApproval(event)) return [data("question", { ...event, id }, event.requestId)];
    const toolCallId = event.callId || event.requestId;
    const asked = this.#call(toolCallId, event.tool, event.proposed ?? {});
    this.#calls.set(event.requestId, toolCallId);
    return [...asked, { type: "tool-approval-request", approvalId: id, toolCallId }];
  }

  /** A call is a step of its own; while one is asked about, others are in its step: an answer is looked for in the last. */
  #call(toolCallId: string, toolName: string, input: unknown): Chunk[] {
    const isAsked = [...this.#calls.values()].some((asked) => this.#isDone.get(asked) === false);
    const step: Chunk[] = isAsked ? [] : [{ type: "start-step" }];
    const about = { toolCallId, toolName, input, dynamic: true, providerExecuted: true };
    this.#isDone.set(toolCallId, false);
    return [...step, { type: "tool-input-available", ...about }];
  }

  #answered({ requestId, outcome, content }: Extract<Event, { type: "input_answered" }>): Chunk[] {
    const toolCallId = this.#calls.get(requestId);
    if (!toolCallId) return [data("answered", { requestId, outcome, content })];
    if (outcome === "INPUT_OUTCOME_ACCEPTED") return [];
    this.#isDone.set(toolCallId, true);
    if (outcome === "INPUT_OUTCOME_DECLINED") return [{ type: "tool-output-denied", toolCallId }];
    return [{ type: "tool-output-error", toolCallId, errorText: "Nobody answered in time.", dynamic: true }];
  }

  #result(event: Extract<Event, { type: "tool_completed" }>): Chunk[] {
    const { callId: toolCallId, tool, result, error } = event;
    const began = this.#isDone.has(toolCallId) ? [] : this.#call(toolCallId, tool, {}); // in a part that nobody kept
    this.#isDone.set(toolCallId, true);
    const about = { toolCallId, dynamic: true, providerExecuted: true };
    if (error !== undefined) return [...began, { type: "tool-output-error", errorText: error, ...about }];
    return [...began, { type: "tool-output-available", output: result ?? null, ...about }];
  }

  /** Settles what will not be called any more: a chat would send an approval again for as long as it is not. */
  #settled(): Chunk[] {
    const open = [...this.#isDone].filter(([, isDone]) => !isDone).map(([toolCallId]) => toolCallId);
    for (const toolCallId of open) this.#isDone.set(toolCallId, true);
    return open.map((toolCallId) => ({ type: "tool-output-error", toolCallId, errorText: "It was not called.", dynamic: true }));
  }

  /** Says which text is void: an AI SDK message cannot take it back, but `shown` can. */
  #recovered({ attempt, checkpointSeq }: { attempt: number; checkpointSeq: number }): Chunk {
    const isKept = ({ seq }: { seq: number }) => seq <= checkpointSeq;
    const length = this.#said.reduce((sum, each) => sum + (isKept(each) ? 0 : each.delta.length), 0);
    this.#said = this.#said.filter(isKept);
    return data("recovered", { attempt, void: length });
  }

  #end(event: Event): Chunk[] {
    if (event.type === "agent_failed") return [{ type: "error", errorText: event.message }];
    if (event.type === "agent_cancelled") return [{ type: "abort", reason: event.reason }];
    if (event.type !== "agent_completed") return [];
    const spoken = this.#said.length || !event.output ? [] : [...this.#piece("text", { ...event, delta: event.output }), ...this.#closed()];
    const { usage, data: answered } = event;
    return [...spoken, { type: "finish", finishReason: "stop", messageMetadata: { usage, data: answered } }];
  }
}

/** A message's parts without text that is void: an engine was lost, and another one said it anew. */
export function shown(parts: Parts): Parts {
  const found: Part[] = [];
  for (const part of parts) {
    if (part.type === "data-recovered") strike(found, (part as { data: { void: number } }).data.void);
    else found.push(part);
  }
  return found;
}

function strike(parts: Part[], length: number): void {
  for (let at = parts.length - 1; at >= 0 && length > 0; at--) {
    const part = parts[at];
    if (part?.type !== "text") continue;
    parts[at] = { ...part, text: part.text.slice(0, Math.max(part.text.length - length, 0)) };
    length -= part.text.length;
  }
}

function ended(event: Event): unknown {
  return { agent: event.agent, state: event.type.replace("agent_", "") };
}

function data(name: string, value: unknown, id?: string): Chunk {
  return { type: `data-${name}`, data: value, ...(id ? { id } : {}) };
}

function wrong(error: unknown): Chunk {
  if (error instanceof RunwireError) return { type: "error", errorText: error.message };
  return { type: "abort" };
}

/** An approval that was answered, and is not known to its run yet. */
function answered(part: Part): { place: Place; toolCallId: string; outcome: "accepted" | "declined" }[] {
  const { state, approval, toolCallId = "" } = part as Approval;
  const place = state === "approval-responded" && approval ? read(approval.id) : undefined;
  return place ? [{ place, toolCallId, outcome: approval?.approved ? "accepted" : "declined" }] : [];
}

function textOf(message: UIMessage | undefined): string {
  return (message?.parts ?? []).map((part) => (part.type === "text" ? part.text : "")).join("");
}

function saidBefore(message: UIMessage): Message[] {
  return said(message.role === "assistant", textOf({ ...message, parts: shown(message.parts) }));
}

/** An answer that came too late, or was given elsewhere, is no reason not to follow its run: that tells what became of it. */
function settledElsewhere(error: unknown): void {
  if (!(error instanceof RunwireError) || error.retry) throw error;
}

function key(chatId: string): string {
  return `runwire/${chatId}`;
}
