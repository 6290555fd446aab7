// What a caller writes, as strictly as TypeScript reads it. Nothing here runs.
import { useChat } from "@ai-sdk/react";
import { agents, answer, resume, run, runs, RunwireError } from "runwire";
import type { Event } from "runwire";
import { RunwireAgent } from "runwire/ag-ui";
import { RunwireChatTransport, shown } from "runwire/ai-sdk";
import { useRun } from "runwire/react";

export async function everything(): Promise<string> {
  let text = "";
  const money = run({ agent: "triage", input: "Help", resumeWindow: 60 }, { url: "wss://example.com/v1/stream", token: async () => "t" });
  for await (const event of money) text += told(event);
  await money.answer("1", { content: { order: "17" } });
  for await (const { seq } of resume({ runId: money.runId ?? "", afterSeq: money.seq })) text += seq;
  await answer({ runId: "1", requestId: "2", outcome: "declined" });
  const [first] = await runs();
  const [agent] = await agents();
  return `${text}${first?.questions[0]?.message}${agent?.name}`;
}

function told(event: Event): string {
  switch (event.type) {
    case "agent_message":
      return event.delta;
    case "tool_executing":
      return JSON.stringify(event.arguments);
    case "agent_completed":
      return event.output;
    // @ts-expect-error: there is no such kind
    case "agent_exploded":
      return "";
    default:
      return event.type;
  }
}

export function Page(): string {
  const { text, state, start, questions, error } = useRun({ token: "t" });
  start({ agent: "triage" });
  // @ts-expect-error: a run has an agent
  start({ input: "Help" });
  const { messages } = useChat({ transport: new RunwireChatTransport({ agent: "triage" }) });
  const parts = messages.flatMap((message) => shown(message.parts));
  return `${text}${state}${questions.length}${parts.length}${error instanceof RunwireError ? error.code : ""}`;
}

export const agent = new RunwireAgent({ agent: "triage", url: "wss://example.com/v1/stream", threadId: "t" });
