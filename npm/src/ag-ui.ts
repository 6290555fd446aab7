// A Runwire agent for AG-UI: what its clients, and CopilotKit's runtime, take as one of their own.
//
//     const agent = new RunwireAgent({ agent: "triage", url: "wss://example.com/v1/stream" });
//
// Where an agent of ours asks, their run ends with an interrupt, and ours waits; the answer is in their next run.

import type { AgentConfig, BaseEvent, Interrupt, Message, RunAgentInput } from "@ag-ui/client";
import { AbstractAgent, EventType } from "@ag-ui/client";
import { Observable } from "rxjs";
import type { Asked } from "./event.js";
import { isApproval, isRoot, said, WINDOW } from "./event.js";
import { read, written } from "./place.js";
import type { Event, Options, Run } from "./runwire.js";
import { answer, resume, run, RunwireError } from "./runwire.js";

export interface RunwireAgentConfig extends AgentConfig, Options {
  agent: string;
  /** What else the agent understands. A run's `forwardedProps` are added. */
  parameters?: Record<string, unknown>;
  /** Seconds that a run outlives its connection, and waits for an answer. 600 unless said. */
  resumeWindow?: number;
}

type Fields = Record<string, unknown> & { type: EventType };
type Usage = Extract<Event, { type: "agent_completed" }>["usage"];

export class RunwireAgent extends AbstractAgent {
  readonly config: RunwireAgentConfig;
  #cancel: (() => void) | undefined;

  constructor(config: RunwireAgentConfig) {
    super({ agentId: config.agent, ...config });
    this.config = config;
  }

  run(input: RunAgentInput): Observable<BaseEvent> {
    return new Observable((subscriber) => {
      const say = (each: Fields) => subscriber.next(each as BaseEvent);
      const told = new Told(input);
      let followed: Run | undefined;
      let isLeft = false;
      this.#cancel = undefined;
      const follow = async () => {
        say({ type: EventType.RUN_STARTED, threadId: input.threadId, runId: input.runId });
        let isCancelled = false;
        this.#cancel = () => {
          isCancelled = true;
          followed?.cancel();
        };
        followed = await this.#begun(input);
        if (isLeft) followed.leave();
        if (isCancelled) followed.cancel();
        for await (const event of followed) {
          if (!isLeft) for (const each of told.events(event, followed.runId ?? "")) say(each);
          if (event.type === "input_requested") followed.leave(); // it needs nobody while it waits for its answer
        }
        if (!told.isOver && !isLeft) say(told.cancelled()); // before it began
      };
      follow().then(
        () => subscriber.complete(),
        (error) => {
          for (const each of told.left()) say(each);
          const code = error instanceof RunwireError ? String(error.code) : "";
          say({ type: EventType.RUN_ERROR, message: error.message, code });
          subscriber.complete();
        },
      );
      return () => {
        isLeft = true;
        followed?.leave();
      };
    });
  }

  /** Stops the run. It still ends, as cancelled. */
  override abortRun(): void {
    this.#cancel?.();
  }

  override clone(): RunwireAgent {
    const { agentId, description, threadId, messages, state } = super.clone();
    const initial = { description, threadId, initialMessages: messages, initialState: state };
    return new RunwireAgent({ ...this.config, ...initial, ...(agentId ? { agentId } : {}) });
  }

  /** Begins a run, or answers what another one waits for, and goes on with that. */
  async #begun({ threadId, messages, resume: answers = [], forwardedProps }: RunAgentInput): Promise<Run> {
    const { agent, parameters, resumeWindow = WINDOW } = this.config;
    const places = answers.map((each) => ({ ...each, place: read(each.interruptId) }));
    for (const { place, status, payload } of places) {
      if (!place) continue;
      const isAccepted = status === "resolved" && !(place.isApproval && payload?.approved === false);
      const content = place.isApproval || !isAccepted ? {} : (payload ?? {});
      await answer({ ...place, outcome: isAccepted ? "accepted" : "declined", content }, this.config);
    }
    const place = places.find((each) => each.place)?.place;
    if (place) return resume({ runId: place.runId, afterSeq: place.seq, resumeWindow }, this.config);
    const last = messages.findLast(({ role }) => role === "user");
    const before = messages.slice(0, last ? messages.lastIndexOf(last) : messages.length).flatMap(saidBefore);
    const asked = { agent, input: last ? textOf(last) : "", history: before, threadId, resumeWindow };
    return run({ ...asked, parameters: { ...parameters, ...forwardedProps } }, this.config);
  }
}

/** What a run has told, as AG-UI has it. */
class Told {
  isOver = false;
  #input: RunAgentInput;
  #runId = "";
  #open: { kind: "text" | "reasoning"; id: string; agent: string } | undefined;
  #parts = 0;
  #agents = new Map<string, string[]>(); // sub-agents that go on, by their paths: one may be there twice
  #messages: { seq: number; message: Message; isText: boolean }[] = []; // each piece of text by itself
  #hasSaid = false;

  constructor(input: RunAgentInput) {
    this.#input = input;
  }

  events(event: Event, runId: string): Fields[] {
    if (this.isOver) return [];
    this.#runId = runId;
    const isNew = !isRoot(event) && event.type !== "agent_started" && !this.#agents.get(event.agent)?.length;
    const began = isNew ? [...this.#closed(), this.#delegated(event.agent, event.seq)] : []; // before the interrupt
    return [...began, ...this.#shaped(event)];
  }

  #shaped(event: Event): Fields[] {
    switch (event.type) {
      case "agent_started":
        return isRoot(event) ? [] : [...this.#closed(), this.#delegated(event.agent, event.seq)];
      case "agent_thinking":
        return this.#piece("reasoning", event);
      case "agent_message":
        return this.#piece("text", event);
      case "tool_executing":
        return [...this.#closed(), ...this.#call(event)];
      case "tool_completed":
        return [...this.#closed(), this.#result(event)];
      case "agent_reported":
        return [...this.#closed(), this.#of(event.agent, { type: EventType.CUSTOM, name: event.name, value: event.data })];
      case "input_requested":
        return [...this.#closed(), ...this.#interrupted(event)];
      case "input_answered":
        return [...this.#closed(), { type: EventType.CUSTOM, name: "input_answered", value: event }];
      case "agent_recovered":
        return [...this.left(), this.#recovered(event)];
      case "model_called":
        return [];
      default:
        return [...this.#closed(), ...(isRoot(event) ? this.#end(event) : this.#returned(event))];
    }
  }

  /** Ends what is open: no more comes of it. */
  left(): Fields[] {
    const ids = [...this.#agents.values()].flat().reverse();
    const closed = this.#closed();
    this.#agents.clear();
    const message = "It did not end.";
    return [...closed, ...ids.map((subagentRunId) => ({ type: EventType.SUBAGENT_ERROR, subagentRunId, message }))];
  }

  cancelled(): Fields {
    return this.#finished({ outcome: { type: "cancelled" } });
  }

  /** Says of which sub-agent it is, if of any. */
  #of(agent: string, fields: Fields): Fields {
    const subagentRunId = this.#agents.get(agent)?.at(-1);
    return subagentRunId ? { ...fields, subagentRunId } : fields;
  }

  #piece(kind: "text" | "reasoning", { agent, delta, seq }: { agent: string; delta: string; seq: number }): Fields[] {
    if (!delta) return [];
    const found: Fields[] = [];
    if (this.#open?.kind !== kind || this.#open.agent !== agent) {
      found.push(...this.#closed());
      const messageId = `${this.#runId}-${seq}-${++this.#parts}`;
      this.#open = { kind, id: messageId, agent };
      if (kind === "text") found.push(this.#of(agent, { type: EventType.TEXT_MESSAGE_START, messageId, role: "assistant" }));
      else {
        found.push(this.#of(agent, { type: EventType.REASONING_START, messageId }));
        found.push(this.#of(agent, { type: EventType.REASONING_MESSAGE_START, messageId, role: "reasoning" }));
      }
    }
    const messageId = this.#open.id;
    const type = kind === "text" ? EventType.TEXT_MESSAGE_CONTENT : EventType.REASONING_MESSAGE_CONTENT;
    const role = kind === "text" ? ("assistant" as const) : ("reasoning" as const);
    this.#keep(seq, agent, { id: messageId, role, content: delta }, true);
    this.#hasSaid ||= kind === "text" && isRoot({ agent });
    return [...found, this.#of(agent, { type, messageId, delta })];
  }

  #closed(): Fields[] {
    const open = this.#open;
    this.#open = undefined;
    if (!open) return [];
    const messageId = open.id;
    if (open.kind === "text") return [this.#of(open.agent, { type: EventType.TEXT_MESSAGE_END, messageId })];
    const ends = [EventType.REASONING_MESSAGE_END, EventType.REASONING_END];
    return ends.map((type) => this.#of(open.agent, { type, messageId }));
  }

  /** Remembers a message as whoever applies our events has it. */
  #keep(seq: number, agent: string, message: Message, isText = false): void {
    const subagentRunId = this.#agents.get(agent)?.at(-1);
    this.#messages.push({ seq, isText, message: subagentRunId ? { ...message, subagentRunId } : message });
  }

  #call({ agent, seq, callId: toolCallId, tool, arguments: given }: Extract<Event, { type: "tool_executing" }>): Fields[] {
    const called = { name: tool, arguments: JSON.stringify(given) };
    this.#keep(seq, agent, { id: toolCallId, role: "assistant", toolCalls: [{ id: toolCallId, type: "function", function: called }] });
    return [
      { type: EventType.TOOL_CALL_START, toolCallId, toolCallName: tool },
      { type: EventType.TOOL_CALL_ARGS, toolCallId, delta: called.arguments },
      { type: EventType.TOOL_CALL_END, toolCallId },
    ].map((each) => this.#of(agent, each));
  }

  #result({ agent, callId: toolCallId, seq, result, error }: Extract<Event, { type: "tool_completed" }>): Fields {
    const content = error ?? (typeof result === "string" ? result : JSON.stringify(result ?? null));
    const messageId = `${this.#runId}-${seq}`;
    this.#keep(seq, agent, { id: messageId, role: "tool", toolCallId, content });
    return this.#of(agent, { type: EventType.TOOL_CALL_RESULT, messageId, toolCallId, content, role: "tool" });
  }

  #delegated(agent: string, seq: number): Fields {
    const parent = this.#agents.get(agent.slice(0, agent.lastIndexOf("/")))?.at(-1);
    const subagentRunId = `${this.#runId}-${seq}`;
    this.#agents.set(agent, [...(this.#agents.get(agent) ?? []), subagentRunId]);
    const above = parent ? { parentSubagentRunId: parent } : {};
    return { type: EventType.SUBAGENT_STARTED, subagentRunId, name: agent.slice(agent.lastIndexOf("/") + 1), ...above };
  }

  #returned(event: Event): Fields[] {
    const subagentRunId = this.#agents.get(event.agent)?.shift();
    if (event.type === "agent_completed") return [{ type: EventType.SUBAGENT_FINISHED, subagentRunId, result: event.output }];
    const message = "message" in event ? event.message : "It was cancelled.";
    return [{ type: EventType.SUBAGENT_ERROR, subagentRunId, message }];
  }

  #interrupted(event: Asked): Fields[] {
    const isTool = isApproval(event);
    const id = written({ ...event, runId: this.#runId, isApproval: isTool });
    const interrupt: Interrupt = {
      id,
      reason: isTool ? "tool_approval" : "question",
      message: event.message,
      ...(event.callId ? { toolCallId: event.callId } : {}),
      ...(event.schema ? { responseSchema: event.schema } : {}),
      ...(event.expiresAt ? { expiresAt: event.expiresAt } : {}),
      ...(isTool ? { metadata: { tool: event.tool, proposed: event.proposed ?? {} } } : {}),
    };
    const waiting = [...this.#agents.values()].flat().reverse().map((subagentRunId) => {
      return { type: EventType.SUBAGENT_FINISHED, subagentRunId, outcome: { type: "suspended", interruptIds: [id] } };
    });
    return [...waiting, this.#finished({ outcome: { type: "interrupt", interrupts: [interrupt] } })];
  }

  /** Takes back text that is void: AG-UI's messages are what a snapshot says they are. */
  #recovered({ checkpointSeq }: { checkpointSeq: number }): Fields {
    const isKept = ({ seq, isText }: { seq: number; isText: boolean }) => !isText || seq <= checkpointSeq;
    this.#messages = this.#messages.filter(isKept);
    const own = new Map<string, Message>();
    for (const { message } of this.#messages) {
      const before = own.get(message.id);
      own.set(message.id, before ? ({ ...before, content: `${before.content}${message.content}` } as Message) : message);
    }
    // What was told before an interrupt has its first piece's position in its id.
    const position = ({ id }: Message) => (id.startsWith(`${this.#runId}-`) ? Number(id.slice(this.#runId.length + 1).split("-")[0]) : 0);
    const isText = ({ role }: Message) => role === "assistant" || role === "reasoning";
    const earlier = this.#input.messages.filter((message) => !isText(message) || position(message) <= checkpointSeq);
    return { type: EventType.MESSAGES_SNAPSHOT, messages: [...earlier, ...own.values()] };
  }

  #end(event: Event): Fields[] {
    const left = this.left();
    if (event.type === "agent_failed") {
      this.isOver = true;
      return [...left, { type: EventType.RUN_ERROR, message: event.message, code: event.reason }];
    }
    if (event.type === "agent_cancelled") return [...left, this.#finished({ outcome: { type: "cancelled" }, usage: usageOf(event.usage) })];
    if (event.type !== "agent_completed") return [];
    const spoken = this.#hasSaid ? [] : [...this.#piece("text", { ...event, delta: event.output }), ...this.#closed()];
    const result = { output: event.output, data: event.data };
    return [...left, ...spoken, this.#finished({ result, outcome: { type: "success" }, usage: usageOf(event.usage) })];
  }

  #finished(about: Record<string, unknown>): Fields {
    const { threadId, runId } = this.#input;
    this.isOver = true;
    return { type: EventType.RUN_FINISHED, threadId, runId, ...about };
  }
}

function usageOf(usage: Usage): unknown {
  return usage?.models.map(({ model, inputTokens = 0, outputTokens = 0, cachedInputTokens = 0 }) => {
    return { model, inputTokens, outputTokens, totalTokens: inputTokens + outputTokens, cachedInputTokens };
  });
}

function saidBefore(message: Message): ReturnType<typeof said> {
  return message.role === "user" || message.role === "assistant" ? said(message.role === "assistant", textOf(message)) : [];
}

function textOf({ content }: Message): string {
  if (typeof content === "string") return content;
  return Array.isArray(content) ? content.map((part) => (part.type === "text" ? part.text : "")).join("") : "";
}
