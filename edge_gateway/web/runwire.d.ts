// Types of runwire.js.

export interface Message {
  role: "ROLE_USER" | "ROLE_ASSISTANT";
  text: string;
}

export interface RunRequest {
  agent: string;
  input?: string;
  threadId?: string;
  /** A UUID. One is made otherwise. */
  runId?: string;
  history?: Message[];
  parameters?: Record<string, unknown>;
  /** Seconds that the run outlives a lost connection. Without it, the run ends with its connection. */
  resumeWindow?: number;
}

export interface Connection {
  state: "connecting" | "open" | "waiting" | "reconnecting" | "closed";
  runId?: string;
  /** The position of the last event that was given. */
  seq: number;
  /** Milliseconds until the next attempt, while waiting. */
  pause?: number;
  /** Why the connection was lost, while waiting. */
  error?: RunwireError;
}

export interface Options {
  /** The gateway's address, like "wss://example.com/v1/stream". Where the page came from, otherwise. */
  url?: string | URL;
  token?: string | (() => string | Promise<string>);
  /** The trace that the run is part of, as a W3C traceparent. */
  traceparent?: string;
  /** Aborting it cancels the run, and throws its reason. */
  signal?: AbortSignal;
  /**
   * Seconds without a frame until a connection is taken for lost. Otherwise 60, or a bit more than two heartbeats of the
   * engine if that is longer.
   */
  silence?: number;
  /**
   * Characters that may wait until the loop takes them; 1 Mi unless said. Where there are more, the connection of a run
   * with a resumeWindow is closed until they are taken. A run without one ends with an error (4008); where there is
   * WebSocketStream it doesn't, since no more is read than is taken, and its agent waits.
   */
  buffer?: number;
  /** Hears how the connection is. */
  onconnection?: (connection: Connection) => void;
  /** Hears that the run is alive and quiet. */
  onheartbeat?: () => void;
  /** Sees each frame as it came. */
  onframe?: (frame: string) => void;
  /** A WebSocket class, where there is none of this name. It is used instead of WebSocketStream, too. */
  WebSocket?: typeof globalThis.WebSocket;
}

interface About {
  seq: number;
  /** RFC 3339, with up to nine digits of a second. */
  time: string;
  /** A path: "triage", or "triage/resolver" for a sub-agent. */
  agent: string;
}

export type FailureReason =
  | "FAILURE_REASON_UNSPECIFIED"
  | "FAILURE_REASON_AGENT_ERROR"
  | "FAILURE_REASON_TIMEOUT"
  | "FAILURE_REASON_CRASHED"
  | "FAILURE_REASON_RESOURCE_LIMIT"
  | "FAILURE_REASON_ENGINE_DRAINING"
  | "FAILURE_REASON_ENGINE_LOST"
  | "FAILURE_REASON_MODEL_ERROR";

/** What calls to models took together, one entry for each model. What is 0 is left out. */
export interface Usage {
  models: {
    model: string;
    inputTokens?: number;
    outputTokens?: number;
    requests?: number;
    cachedInputTokens?: number;
  }[];
}

/** What an agent asks its user. */
export interface Question {
  requestId: string;
  reason: "INPUT_REASON_UNSPECIFIED" | "INPUT_REASON_QUESTION" | "INPUT_REASON_TOOL_APPROVAL";
  message: string;
  /** The call of a tool that it is about, or was asked in. */
  callId: string;
  /** A JSON Schema of a flat object. Its fields are to be shown in the order of `required`. */
  schema?: { type: "object"; properties: Record<string, Record<string, unknown>>; required?: string[] };
  /** The arguments that the tool would be called with. */
  proposed?: Record<string, unknown>;
  /** RFC 3339. */
  expiresAt?: string;
  /** The tool that would be called. */
  tool: string;
}

export interface Answer {
  /** "accepted" unless said. */
  outcome?: "accepted" | "declined";
  /** As the question's schema wants it. */
  content?: Record<string, unknown>;
}

/** What there is to know about a run. */
export interface RunInfo {
  runId: string;
  agent: string;
  threadId: string;
  /** RFC 3339. */
  started?: string;
  lastSeq: number;
  questions: Question[];
  isOver: boolean;
  /** Who began it for its user, if that wasn't they themselves. */
  service: string;
}

/** What there is to know about an agent before running it. */
export interface AgentInfo {
  name: string;
  description: string;
  /** "process", "jail" or "task". */
  isolation: string;
  /** What may be sent along as parameters, as a JSON Schema; missing where the agent's author has declared nothing. */
  parametersSchema?: Record<string, unknown>;
}

export type Event =
  | (About & { type: "agent_started"; threadId: string; input: string })
  | (About & { type: "agent_thinking"; delta: string })
  | (About & { type: "agent_message"; delta: string })
  | (About & { type: "tool_executing"; callId: string; tool: string; arguments: Record<string, unknown> })
  /** Exactly one of `result` and `error` is there. `elapsed` is seconds, like "0.25s". */
  | (About & { type: "tool_completed"; callId: string; tool: string; result?: unknown; error?: string; elapsed?: string })
  | (About & { type: "agent_reported"; name: string; data: Record<string, unknown> })
  | (About & { type: "input_requested" } & Question)
  | (About & {
      type: "input_answered";
      requestId: string;
      outcome: "INPUT_OUTCOME_ACCEPTED" | "INPUT_OUTCOME_DECLINED" | "INPUT_OUTCOME_EXPIRED";
      content: Record<string, unknown>;
      /** Who answered; empty when nobody did. */
      answeredBy: string;
    })
  /**
   * The run's engine was lost, and another one goes on with it. Pieces of text between `checkpointSeq` and this event are
   * void: take them back where they are shown. What tools did is not.
   */
  | (About & { type: "agent_recovered"; attempt: number; checkpointSeq: number })
  /** `elapsed` and `toFirstWord` are seconds, like "0.25s". */
  | (About & {
      type: "model_called";
      model: string;
      elapsed?: string;
      toFirstWord?: string;
      inputTokens: number;
      outputTokens: number;
      cachedInputTokens: number;
    })
  | (About & { type: "agent_completed"; output: string; data: Record<string, unknown>; elapsed?: string; usage?: Usage })
  | (About & { type: "agent_failed"; reason: FailureReason; message: string; retryable: boolean; usage?: Usage })
  | (About & { type: "agent_cancelled"; reason: string; usage?: Usage });

/** Why there are no more events although the run has not ended, or why an answer was not taken. */
export class RunwireError extends Error {
  /** The close code: 1006 for a lost connection, 4000 + n for gRPC status n; HTTP's status where a list is refused. */
  readonly code: number;
  /** Whether the same may succeed when it is tried again. */
  readonly retry: boolean;
  /** What is wrong with each field of an answer. */
  readonly violations: Record<string, string>;
}

/** One run. Iterate it once. Breaking out of the loop cancels it. */
export interface Run extends AsyncIterable<Event> {
  readonly runId: string | undefined;
  readonly seq: number;
  /** Answers one of its questions. Resolves once the answer is taken, and rejects with a RunwireError that says why not. */
  answer(requestId: string, answer?: Answer): Promise<void>;
  /** Stops the run. It still ends with its terminal event, agent_cancelled. */
  cancel(): void;
  /** Leaves it: the loop ends. A run with a resumeWindow goes on for so long, and can be joined again; another ends. */
  leave(): void;
  /** Cuts the connection, as a bad network would. A run with a resumeWindow goes on, and is joined again. */
  cut(): void;
}

export function run(request: RunRequest, options?: Options): Run;
/** `resumeWindow` is what the run was begun with: how long a slow loop may go without a look at it. 60 unless said. */
export function resume(position: { runId: string; afterSeq?: number; resumeWindow?: number }, options?: Options): Run;
/** Answers a question of a run, whoever follows that run. Said twice, it is taken once. */
export function answer(
  answer: Answer & { runId: string; requestId: string },
  options?: Pick<Options, "url" | "token" | "signal" | "WebSocket">,
): Promise<void>;
/** Lists the agents that there are. */
export function agents(options?: Pick<Options, "url" | "token">): Promise<AgentInfo[]>;
/** Lists one's own runs: those that go on, and those that can still be read, with the questions that they ask. */
export function runs(options?: Pick<Options, "url" | "token">): Promise<RunInfo[]>;
