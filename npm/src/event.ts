// What every face of the package needs to know of an event, and of what was said before.

import type { Event, Message } from "./runwire.js";

export type Asked = Extract<Event, { type: "input_requested" }>;

/** Seconds that a run waits for whoever has to answer: as long as a question does, unless its agent says otherwise. */
export const WINDOW = 600;

const ENDS: ReadonlySet<Event["type"]> = new Set(["agent_completed", "agent_failed", "agent_cancelled"]);

/** Tells whether it happened to the agent that was asked for, and not to one that it delegated to. */
export function isRoot({ agent }: { agent: string }): boolean {
  return !agent.includes("/");
}

export function isEnd(event: Event): boolean {
  return ENDS.has(event.type) && isRoot(event);
}

export function isApproval({ reason }: Asked): boolean {
  return reason === "INPUT_REASON_TOOL_APPROVAL";
}

/** Something that was said before, as a run's history has it; nothing if it has no text. */
export function said(isAgent: boolean, text: string): Message[] {
  return text ? [{ role: isAgent ? "ROLE_ASSISTANT" : "ROLE_USER", text }] : [];
}
