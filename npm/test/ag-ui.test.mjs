// runwire/ag-ui, judged by AG-UI: its own client runs the agent, and its own verifier looks at every event.
import assert from "node:assert/strict";
import test from "node:test";
import { verifyEvents } from "@ag-ui/client";
import { EventSchema } from "@ag-ui/core/schemas";
import { lastValueFrom, toArray } from "rxjs";
import { RunwireAgent } from "runwire/ag-ui";
import { until, url } from "./gateway.mjs";

const user = (content) => ({ id: crypto.randomUUID(), role: "user", content });
const started = (agent, content, more = {}) => {
  const one = new RunwireAgent({ agent, url, threadId: "t", initialMessages: [user(content)], ...more });
  const events = [];
  one.subscribe({ onEvent: ({ event }) => void events.push(event) });
  return { one, events };
};
const types = (events) => events.map(({ type }) => type);
const texts = ({ messages }) => messages.filter(({ role }) => role === "assistant").map(({ content }) => content ?? "").join("");

test("words, reasoning, tools and sub-agents are AG-UI's, and its verifier has nothing to say against them", async () => {
  const { one, events } = started("triage", "My invoice is wrong");
  const { result, newMessages } = await one.runAgent();
  assert.ok(result.output.length > 20);
  assert.ok(newMessages.some(({ role, toolCalls }) => role === "assistant" && toolCalls?.length));
  assert.ok(newMessages.some(({ role }) => role === "tool"));
  assert.ok(texts(one).includes(result.output.slice(0, 10)));
  const seen = new Set(types(events));
  for (const type of ["RUN_STARTED", "REASONING_START", "TOOL_CALL_START", "TOOL_CALL_RESULT", "SUBAGENT_STARTED", "SUBAGENT_FINISHED", "TEXT_MESSAGE_CONTENT"])
    assert.ok(seen.has(type), type);
  assert.deepEqual(events.at(-1).outcome, { type: "success" });
});

test("every event is what its schema says, and its verifier takes the raw stream", async () => {
  const { one } = started("triage", "My invoice is wrong");
  const input = { threadId: "t", runId: "r", messages: one.messages, tools: [], context: [], state: {}, forwardedProps: {} };
  const events = await lastValueFrom(one.run(input).pipe(verifyEvents(), toArray()));
  for (const event of events) EventSchema.parse(event);
  assert.equal(types(events).at(-1), "RUN_FINISHED");
});

for (const [status, payload, outcome] of [["resolved", { approved: true }, "called"], ["cancelled", undefined, "not called"]]) {
  test(`an approval is an interrupt; the tool is ${outcome} when it is ${status}`, async () => {
    const { one, events } = started("triage", "I want my money back");
    await one.runAgent();
    const [interrupt] = one.pendingInterrupts;
    assert.equal(interrupt.reason, "tool_approval");
    assert.ok(interrupt.metadata.tool);
    const { result } = await one.runAgent({ resume: [{ interruptId: interrupt.id, status, payload }] });
    assert.ok(result.output);
    assert.equal(one.pendingInterrupts.length, 0);
    assert.deepEqual(events.at(-1).outcome, { type: "success" });
  });
}

test("a question's answer goes back as it was given, in another process even", async () => {
  const { one } = started("orders", "Ask");
  await one.runAgent();
  const [interrupt] = one.pendingInterrupts;
  assert.deepEqual(interrupt.responseSchema.required, ["order", "many"]);
  const other = new RunwireAgent({ agent: "orders", url, threadId: "t", initialMessages: one.messages });
  other.pendingInterrupts = [interrupt];
  const resumed = [{ interruptId: interrupt.id, status: "resolved", payload: { order: "17", many: 2 } }];
  const { result } = await other.runAgent({ resume: resumed });
  assert.deepEqual(result.data.content, { order: "17", many: 2 });
});

test("aborting cancels the run, and it ends as cancelled", async () => {
  const { one, events } = started("waiter", "Wait");
  const over = one.runAgent();
  await until(() => types(events).includes("TEXT_MESSAGE_CONTENT"));
  one.abortRun();
  await over;
  assert.deepEqual(events.at(-1).outcome, { type: "cancelled" });
});

test("a failing agent, and one that is not there, are a RUN_ERROR with a sentence", async () => {
  for (const [agent, message] of [["rogue", "The shop is closed."], ["nobody", undefined]]) {
    const { one, events } = started(agent, "fail");
    await one.runAgent().catch(() => {});
    assert.equal(events.at(-1).type, "RUN_ERROR");
    if (message) assert.equal(events.at(-1).message, message);
    assert.ok(events.at(-1).message.length > 10);
  }
});

test("what was said before is the run's history", async () => {
  const { one } = started("witness", "First");
  await one.runAgent();
  one.addMessage(user("Second"));
  const { result } = await one.runAgent();
  const { input, thread, history } = JSON.parse(result.output);
  assert.deepEqual([input, thread, history.length, history[0]], ["Second", "t", 2, "user: First"]);
});

test("a clone runs by itself, as CopilotKit's runtime has it", async () => {
  const { one } = started("echo", "hi");
  const copy = one.clone();
  const { result } = await copy.runAgent();
  assert.equal(result.output, "hi");
  assert.equal(one.messages.length, 1);
  assert.equal(copy.agentId, "echo");
});
