// What the console's pages are made of, as far as it needs no page.
import assert from "node:assert/strict";
import test from "node:test";

const web = new URL("../../edge_gateway/web/console/", import.meta.url);
const { Marks, Recording, Said, milliseconds } = await import(new URL("recording.js", web));
const { blocksOf } = await import(new URL("prose.js", web));
const { hex, outline, resumeFrame } = await import(new URL("binary.js", web));
const { Threads, historyOf } = await import(new URL("threads.js", web));

/** Events as runwire.js gives them, numbered, a tenth of a second apart. */
function told(...events) {
  const recording = new Recording();
  for (const [index, event] of events.entries()) {
    const time = `2026-01-01T00:00:${String(Math.floor(index / 10)).padStart(2, "0")}.${index % 10}00000000Z`;
    recording.on({ seq: index + 1, time, agent: "root", ...event });
  }
  return recording;
}

const tree = (recording) => recording.rows().map(({ depth, kind, name, state }) => `${"  ".repeat(depth)}${kind} ${name} ${state}`);
const started = (agent = "root") => ({ type: "agent_started", agent, input: "" });
const completed = (agent = "root", output = "") => ({ type: "agent_completed", agent, output, data: {} });

test("spans are nested, also where two go on at once", () => {
  const recording = told(
    started(),
    started("root/one"),
    started("root/two"),
    { type: "tool_executing", agent: "root/one", callId: "a", tool: "search", arguments: {} },
    { type: "tool_executing", agent: "root/two", callId: "b", tool: "count", arguments: {} },
    { type: "tool_completed", agent: "root/two", callId: "b", tool: "count", error: "no" },
    completed("root/one"),
    { type: "model_called", agent: "root/two", model: "m", elapsed: "0.25s", toFirstWord: "0.1s", inputTokens: 1, outputTokens: 2 },
    completed("root/two"),
    completed(),
  );
  assert.deepEqual(tree(recording), [
    "agent root done",
    "  agent one done",
    "    tool search cancelled",
    "  agent two done",
    "    tool count failed",
    "    model m done",
  ]);
  const model = recording.rows().at(-1);
  assert.ok(Math.abs(model.start - 450) < 1e-6 && Math.abs(model.end - 700) < 1e-6, "it began before it was told");
  recording.rows()[1].isOpen = false;
  assert.equal(recording.rows().length, 5);
});

test("what models took is said of the run", () => {
  const models = [{ model: "m", inputTokens: 3, outputTokens: 4, requests: 1 }];
  const recording = told(started(), { ...completed(), usage: { models } });
  assert.deepEqual([recording.usage, recording.root.about.usage], [models, models]);
});

test("an agent that is asked twice is there twice", () => {
  const recording = told(started(), started("root/one"), completed("root/one"), started("root/one"), completed("root/one"), completed());
  assert.equal(recording.rows().length, 3);
});

test("what was said in vain is taken back", () => {
  const say = (delta) => ({ type: "agent_message", delta });
  const recording = told(started(), say("a"), say("b"), say("c"), { type: "agent_recovered", attempt: 2, checkpointSeq: 2 }, say("d"));
  assert.equal(recording.answer.text, "ad");
  assert.equal(recording.rows()[1].about["said in vain"], "bc");
});

test("a question is open until it is answered, and is one though it is asked again", () => {
  const asked = { type: "input_requested", requestId: "q", message: "Which?", tool: "" };
  const recording = told(started(), asked, asked);
  assert.equal(recording.questions.size, 1);
  assert.equal(recording.rows().length, 2);
  recording.on({ type: "input_answered", seq: 4, time: "2026-01-01T00:00:01Z", agent: "root", requestId: "q", outcome: "INPUT_OUTCOME_ACCEPTED", content: {}, answeredBy: "a" });
  assert.equal(recording.questions.size, 0);
  assert.equal(recording.rows()[1].state, "done");
});

test("of a kind that is not known nothing is shown, whatever it is called", () => {
  const recording = told(started(), { type: "constructor" }, { type: "rows" }, { type: "on" }, { type: "agent_dreaming" });
  assert.equal(recording.events, 5);
  assert.equal(recording.rows().length, 1);
});

test("what is kept is bounded", () => {
  const recording = new Recording();
  const time = "2026-01-01T00:00:00Z";
  recording.on({ ...started(), seq: 1, time });
  for (let number = 0; number < 60_000; number++) {
    const about = { seq: 2, time, agent: "root", callId: String(number), tool: "t" };
    recording.on({ ...about, type: "tool_executing", arguments: { text: "x".repeat(500) } });
    recording.on({ ...about, type: "tool_completed", result: number });
  }
  assert.ok(recording.spans.length <= 50_000);
  assert.equal(recording.spans.length + recording.dropped, 60_001);
  assert.equal(recording.rows().length, recording.spans.length);
  const size = recording.spans.reduce((sum, { about }) => sum + JSON.stringify(about).length, 0);
  assert.ok(size < 12_000_000, `${size} characters`);
  assert.equal(recording.spans.at(-1).about.result, 59_999);
});

test("agents that are over go, too, and where none can go it is not tried at each event", () => {
  const recording = new Recording();
  const time = "2026-01-01T00:00:00Z";
  recording.on({ ...started(), seq: 1, time });
  const began = performance.now();
  for (let number = 0; number < 120_000; number++) recording.on({ ...started(`root/one-${number}`), seq: 2, time });
  assert.ok(performance.now() - began < 5000, `${performance.now() - began} ms`);
  const other = new Recording();
  other.on({ ...started(), seq: 1, time });
  for (let number = 0; number < 60_000; number++) {
    other.on({ ...started("root/one"), seq: 2, time });
    other.on({ ...completed("root/one"), seq: 2, time });
  }
  assert.ok(other.spans.length <= 50_001 && other.dropped > 0, `${other.spans.length} spans`);
});

test("a text that is too long loses its beginning, and can still be taken back", () => {
  const said = new Said();
  for (let seq = 1; seq <= 300; seq++) said.add("x".repeat(1000), seq);
  said.add("end", 301);
  assert.ok(said.text.length <= 200_000 && said.text.startsWith("…x") && said.text.endsWith("xend"));
  assert.equal(said.takeBack(300), "end");
  assert.ok(said.text.endsWith("x"));
});

test("marks are bounded, and still stand for all of the time", () => {
  const marks = new Marks();
  for (let at = 0; at < 100_000; at++) marks.add(at);
  assert.ok(marks.length <= 20_000 && marks.length > 9_000);
  assert.equal(marks.at(0), 0);
  assert.ok(marks.at(marks.length - 1) > 99_000);
});

test("times have the parts of a millisecond", () => {
  assert.equal(milliseconds("2026-01-01T00:00:00Z"), Date.parse("2026-01-01T00:00:00Z"));
  assert.ok(Math.abs(milliseconds("2026-01-01T00:00:00.000250Z") - Date.parse("2026-01-01T00:00:00Z") - 0.25) < 1e-3);
});

test("text is cut into paragraphs, lists and code", () => {
  const { blocks } = blocksOf("One\ntwo\n\n- a\n- b\n  more\n\n3. c\n```py\nif x:\n\n  y\n```\n# Head\nlast");
  assert.deepEqual(
    blocks.map(({ kind, lines, items }) => [kind, lines ?? items]),
    [
      ["text", ["One", "two"]],
      ["list", ["a", "b\nmore"]],
      ["list", ["c"]],
      ["code", ["if x:", "", "  y"]],
      ["heading", ["Head"]],
      ["text", ["last"]],
    ],
  );
});

test("however text arrives, what is shown in the end is the same", () => {
  const text = "Hello *you*\n\n1. `a`\n2. b\n\n```\ncode\n# no head\n```\n\n- x\n\ttab\n## Two\n~~~\n```\n~~~\nend";
  const plain = ({ blocks }) => blocks.map(({ end, ...block }) => block);
  const whole = plain(blocksOf(text));
  for (let size = 1; size < 12; size++) {
    let shown = [];
    let over = 0;
    for (let at = size; at < text.length + size; at += size) {
      const cut = blocksOf(text.slice(over, at));
      shown = shown.filter(({ isOver }) => isOver);
      shown.push(...cut.blocks.map((block) => ({ ...block, isOver: block.end <= cut.over })));
      over += cut.over;
    }
    assert.deepEqual(shown.map(({ end, isOver, ...block }) => block), whole, `in pieces of ${size}`);
  }
});

test("a binary frame is what the contract says, and bytes are outlined", () => {
  const frame = resumeFrame({ runId: "r", afterSeq: 300, token: "t" });
  assert.deepEqual([...frame], [10, 1, 116, 90, 6, 10, 1, 114, 16, 172, 2]);
  assert.deepEqual(outline(frame), ['1: "t"', "11 {", '  1: "r"', "  2: 300", "}"]);
  assert.match(hex(frame), /^0000 {2}0a 01 74 5a/);
  for (let length = 0; length < 200; length++) {
    assert.ok(Array.isArray(outline(Uint8Array.from({ length }, (_, index) => (index * 37 + length) % 256))));
  }
});

test("conversations are kept for one user, bounded, and without what is too long", () => {
  const kept = new Map();
  const storage = {
    getItem: (key) => kept.get(key) ?? null,
    setItem: (key, value) => kept.set(key, value),
    removeItem: (key) => kept.delete(key),
  };
  const threads = new Threads("alice", storage);
  for (let number = 0; number < 40; number++) {
    const thread = threads.begin("echo");
    thread.turns.push({ agent: "echo", input: `question ${number}`, answer: "x".repeat(200_000), state: "done" });
    threads.keep(thread);
  }
  const again = new Threads("alice", storage);
  assert.equal(again.list.length, 30);
  assert.equal(again.list[0].title, "question 39");
  assert.equal(again.list[0].turns[0].answer.length, 20_000);
  assert.deepEqual(new Threads("bob", storage).list, []);
  again.forget();
  assert.deepEqual(new Threads("alice", storage).list, []);
});

test("conversations of two tabs are kept both, and what was forgotten stays so", () => {
  const kept = new Map();
  const storage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value), removeItem: (key) => kept.delete(key) };
  const [one, other] = [new Threads("alice", storage), new Threads("alice", storage)];
  const asked = (threads, input) => {
    const thread = threads.begin("echo", [{ agent: "echo", input, answer: "", state: "done" }]);
    threads.keep(thread);
    return thread;
  };
  const first = asked(one, "one");
  asked(other, "other");
  asked(one, "again");
  const titles = () => new Threads("alice", storage).list.map(({ title }) => title).sort();
  assert.deepEqual(titles(), ["again", "one", "other"]);
  one.remove(first);
  asked(one, "more");
  assert.deepEqual(titles(), ["again", "more", "other"]);
});

test("a tab that is behind takes nothing back: neither turns nor what was forgotten", () => {
  const kept = new Map();
  const storage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value), removeItem: (key) => kept.delete(key) };
  const ahead = new Threads("alice", storage);
  const thread = ahead.begin("echo", [{ runId: "1", input: "one", state: "done" }]);
  ahead.keep(thread);
  const behind = new Threads("alice", storage);
  thread.turns.push({ runId: "2", input: "two", state: "done" });
  thread.changed = Date.now() + 1;
  ahead.write();
  behind.write();
  const inputs = () => new Threads("alice", storage).list.map(({ turns }) => turns.map(({ input }) => input));
  assert.deepEqual(inputs(), [["one", "two"]]);
  ahead.forget();
  ahead.keep(thread); // its run ends
  behind.write();
  assert.deepEqual(inputs(), []);
});

test("what is sent along of what was said is the newest of it, and nothing that failed", () => {
  const turn = (input, answer, state = "done") => ({ input, answer, state });
  assert.deepEqual(historyOf([turn("a", "b"), turn("c", "", "failed")]), [
    { role: "ROLE_USER", text: "a" },
    { role: "ROLE_ASSISTANT", text: "b" },
  ]);
  const long = historyOf([turn("old", "x".repeat(400_000)), turn("new", "y".repeat(400_000))]);
  assert.deepEqual(long.map(({ text }) => text.slice(0, 3)), ["new", "yyy"]);
});
