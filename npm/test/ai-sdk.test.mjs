// runwire/ai-sdk, judged by the AI SDK: its own chat, and its own schema of chunks.
import assert from "node:assert/strict";
import test from "node:test";
import { Chat } from "@ai-sdk/react";
import { lastAssistantMessageIsCompleteWithApprovalResponses, uiMessageChunkSchema } from "ai";
import { RunwireChatTransport, shown } from "runwire/ai-sdk";
import { storage, until, url } from "./gateway.mjs";

/** A chat whose chunks are all looked at. */
function chatWith(options, more = {}) {
  const transport = new RunwireChatTransport({ url, storage: storage(), ...options });
  const chunks = [];
  for (const method of ["sendMessages", "reconnectToStream"]) {
    const original = transport[method];
    transport[method] = async (...given) => {
      const stream = await original(...given);
      return stream?.pipeThrough(new TransformStream({ transform: (chunk, next) => (chunks.push(chunk), next.enqueue(chunk)) })) ?? null;
    };
  }
  const chat = new Chat({
    transport,
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses,
    onError: (error) => chunks.push({ thrown: error.message }),
    ...more,
  });
  return { chat, chunks, transport };
}

async function valid(chunks) {
  const schema = await uiMessageChunkSchema();
  for (const chunk of chunks) {
    const { success, error } = await schema.validate(chunk);
    assert.ok(success, `${JSON.stringify(chunk)}: ${error}`);
  }
}

const texts = (message) => message.parts.filter(({ type }) => type === "text").map(({ text }) => text).join("");
const tool = (message) => message?.parts.find(({ type }) => type === "dynamic-tool");
const isDone = ({ chat }) => chat.status === "ready" || chat.status === "error";

test("words, reasoning, tools and sub-agents become a message's parts", async () => {
  const one = chatWith({ agent: "triage" });
  await one.chat.sendMessage({ text: "My invoice is wrong" });
  await valid(one.chunks);
  const [, message] = one.chat.messages;
  assert.equal(one.chat.status, "ready");
  assert.ok(texts(message).length > 20);
  assert.ok(message.parts.some(({ type }) => type === "reasoning"));
  assert.ok(message.parts.some(({ type, data }) => type === "data-agent" && data.state === "completed"));
  const calls = message.parts.filter(({ type }) => type === "dynamic-tool");
  assert.ok(calls.length && calls.every(({ state }) => state === "output-available"));
  assert.equal(message.id, message.metadata.runId);
  assert.deepEqual(one.chunks.at(-1).type, "finish");
});

test("what was said before is the run's history", async () => {
  const one = chatWith({ agent: "witness" });
  await one.chat.sendMessage({ text: "First" });
  await one.chat.sendMessage({ text: "Second" });
  const { input, thread, history } = JSON.parse(texts(one.chat.messages[3]));
  assert.deepEqual([input, thread, history.length, history[0]], ["Second", one.chat.id, 2, "user: First"]);
});

for (const approved of [true, false]) {
  test(`a tool is ${approved ? "called" : "not called"} once its user has ${approved ? "approved" : "declined"}`, async () => {
    const one = chatWith({ agent: "triage" });
    await one.chat.sendMessage({ text: "I want my money back" });
    const asked = one.chat.messages[1].parts.find(({ state }) => state === "approval-requested");
    assert.equal(one.chat.status, "ready");
    await one.chat.addToolApprovalResponse({ id: asked.approval.id, approved });
    await until(() => one.chunks.at(-1)?.finishReason === "stop" && isDone(one));
    await valid(one.chunks);
    assert.equal(one.chat.messages.length, 2);
    const answered = one.chat.messages[1].parts.find(({ toolCallId }) => toolCallId === asked.toolCallId);
    assert.equal(answered.state, approved ? "output-available" : "output-denied");
    assert.ok(texts(one.chat.messages[1]).length);
  });
}

test("a page that is loaded again while it is asked finds the question, and answers it", async () => {
  const kept = storage();
  const before = chatWith({ agent: "triage", storage: kept }, { id: "one" });
  await before.chat.sendMessage({ text: "I want my money back" });
  const after = chatWith({ agent: "triage", storage: kept }, { id: "one", messages: before.chat.messages });
  await after.chat.resumeStream();
  const asked = after.chat.messages[1].parts.find(({ state }) => state === "approval-requested");
  await after.chat.addToolApprovalResponse({ id: asked.approval.id, approved: true });
  await until(() => after.chunks.at(-1)?.finishReason === "stop" && isDone(after));
  assert.equal(after.chat.messages.length, 2);
  assert.equal(kept.kept.size, 0);
});

test("a page that is loaded again goes on with its run, and says nothing twice", async () => {
  const kept = storage();
  const before = chatWith({ agent: "ticker", storage: kept, parameters: { ticks: 40 } }, { id: "two" });
  before.chat.sendMessage({ text: "Tick" });
  await until(() => before.chat.messages[1] && texts(before.chat.messages[1]).length > 10);
  const saved = structuredClone(before.chat.messages);
  const after = chatWith({ agent: "ticker", storage: kept }, { id: "two", messages: saved });
  await after.chat.resumeStream();
  const whole = Array.from({ length: 40 }, (_, tick) => String(tick)).join("");
  assert.equal(after.chat.messages.length, 2);
  assert.equal(texts(after.chat.messages[1]), whole);
  await valid(after.chunks);
  await after.chat.resumeStream(); // there is nothing any more
  assert.equal(texts(after.chat.messages[1]), whole);
});

test("stop() cancels the run", async () => {
  const one = chatWith({ agent: "waiter" });
  one.chat.sendMessage({ text: "Wait" });
  const message = await until(() => one.chat.messages[1] && texts(one.chat.messages[1]) && one.chat.messages[1]);
  await one.chat.stop();
  assert.equal(one.chat.status, "ready");
  const { runs } = await import("runwire");
  await until(async () => (await runs({ url })).find(({ runId }) => runId === message.id).isOver);
});

test("a failing agent is an error with its sentence", async () => {
  const one = chatWith({ agent: "rogue" });
  await one.chat.sendMessage({ text: "fail" });
  assert.equal(one.chat.status, "error");
  assert.equal(one.chat.error.message, "The shop is closed.");
  const none = chatWith({ agent: "nobody" });
  await none.chat.sendMessage({ text: "hi" });
  assert.equal(none.chat.status, "error");
});

test("a question is a part of the message, and is answered from beside it", async () => {
  const one = chatWith({ agent: "orders" });
  const over = one.chat.sendMessage({ text: "Ask" });
  const asked = await until(() => one.chat.messages[1]?.parts.find(({ type }) => type === "data-question"));
  assert.deepEqual(asked.data.schema.required, ["order", "many"]);
  await one.transport.answer(asked.data.id, { content: { order: "17", many: 2 } });
  await over;
  await valid(one.chunks);
  assert.ok(one.chat.messages[1].parts.some(({ type }) => type === "data-answered"));
});

test("two tools that are asked about at once are both answered, and both called", async () => {
  const one = chatWith({ agent: "payers" });
  await one.chat.sendMessage({ text: "Ask twice" });
  for (let asked = 0; asked < 2; asked++) {
    const part = await until(() => isDone(one) && one.chat.messages[1].parts.find(({ state }) => state === "approval-requested"));
    await one.chat.addToolApprovalResponse({ id: part.approval.id, approved: true });
  }
  await until(() => one.chunks.at(-1)?.finishReason === "stop" && isDone(one));
  await valid(one.chunks);
  const states = one.chat.messages[1].parts.filter(({ type }) => type === "dynamic-tool").map(({ state }) => state);
  assert.deepEqual(states, ["output-available", "output-available"]);
});

test("text that is void is not shown", () => {
  const parts = [
    { type: "text", text: "one " },
    { type: "reasoning", text: "hm" },
    { type: "text", text: "two three" },
    { type: "data-recovered", data: { attempt: 2, void: 10 } },
    { type: "text", text: "two" },
  ];
  assert.equal(texts({ parts: shown(parts) }), "onetwo"); // the last blank of "one " and all behind it was void
});
