// Checks of runwire.js that run in Node and in Chromium alike. Each is a sentence, and throws when it isn't true.
export const checks = (runwire, url) => ({
  async "events have a type, their fields, seq, time and agent"() {
    const events = await all(runwire.run({ agent: "echo", input: "hi", parameters: { times: 2 } }, { url }));
    same(events.map(({ type }) => type), ["agent_started", "agent_message", "agent_message", "agent_completed"]);
    same(events.map(({ seq }) => seq), [1, 2, 3, 4]);
    same([events[0].input, events[0].threadId, events[1].delta, events[3].output], ["hi", "", "hi", "hi"]);
    same(events.every(({ time, agent }) => agent === "echo" && !Number.isNaN(Date.parse(time))), true);
  },

  async "what a run has no field for is an error, and not lost"() {
    const said = (() => {
      try {
        runwire.run({ agent: "echo", resume_window: 30 }, { url });
      } catch (error) {
        return `${error}`;
      }
    })();
    same(said, "TypeError: A run has no resume_window.");
  },

  async "breaking out of the loop cancels the run"() {
    let pid;
    for await (const event of runwire.run({ agent: "pid" }, { url })) if ((pid = event.delta)) break;
    same(Number(pid) > 0, true);
    return { pid: Number(pid) };
  },

  async "aborting the signal cancels the run, and throws its reason"() {
    const abort = new AbortController();
    let pid;
    try {
      for await (const event of runwire.run({ agent: "pid" }, { url, signal: abort.signal })) {
        pid = event.delta ?? pid;
        if (pid) abort.abort(new Error("enough"));
      }
      throw new Error("it went on");
    } catch (error) {
      same(error.message, "enough");
    }
    return { pid: Number(pid) };
  },

  async "cancel() stops the run, which still says so"() {
    const run = runwire.run({ agent: "waiter" }, { url });
    const types = [];
    for await (const { type } of run) {
      types.push(type);
      if (type === "agent_message") run.cancel();
    }
    same(types, ["agent_started", "agent_message", "agent_cancelled"]);
  },

  async "a question is answered from inside the loop that shows it"() {
    const asking = runwire.run({ agent: "orders", resumeWindow: 30 }, { url });
    const events = [];
    for await (const event of asking) {
      events.push(event);
      if (event.type !== "input_requested") continue;
      same([event.message, event.reason, event.tool], ["Which order?", "INPUT_REASON_QUESTION", ""]);
      same(event.schema.required, ["order", "many"]);
      const error = await asking.answer(event.requestId, { content: { order: 17 } }).catch((caught) => caught);
      same([error.code, error.retry, Object.keys(error.violations).sort()], [4003, false, ["many", "order"]]);
      await asking.answer(event.requestId, { content: { order: "17", many: 2 } });
      await asking.answer(event.requestId, { content: { order: "17", many: 2 } });
      const late = await asking.answer(event.requestId, { outcome: "declined" }).catch((caught) => caught);
      same([late.code, late.retry], [4010, false]);
    }
    const [answered] = events.filter(({ type }) => type === "input_answered");
    same([answered.outcome, answered.content.order], ["INPUT_OUTCOME_ACCEPTED", "17"]);
    const { outcome, content } = events.at(-1).data;
    same([outcome, content.order, content.many], ["accepted", "17", 2]);
  },

  async "a question is answered by whoever finds it in the list of runs"() {
    const token = "dev:lister";
    const asking = runwire.run({ agent: "asker", resumeWindow: 30, threadId: "t" }, { url, token });
    const types = [];
    for await (const event of asking) {
      types.push(event.type);
      if (event.type !== "input_requested") continue;
      const [found] = await runwire.runs({ url, token });
      same([found.runId, found.agent, found.threadId, found.isOver], [asking.runId, "asker", "t", false]);
      same(found.questions.map(({ requestId }) => requestId), [event.requestId]);
      same(await runwire.runs({ url, token: "dev:another" }), []);
      const { runId, requestId } = { ...found, ...found.questions[0] };
      const other = await runwire.answer({ runId, requestId }, { url, token: "dev:another" }).catch((caught) => caught);
      same(other.code, 4005);
      await runwire.answer({ runId, requestId, outcome: "declined" }, { url, token });
    }
    same(types, ["agent_started", "input_requested", "input_answered", "agent_completed"]);
  },

  async "a failing agent is an event, and no error"() {
    const events = await all(runwire.run({ agent: "rogue", input: "fail" }, { url }));
    same([events.at(-1).type, events.at(-1).message], ["agent_failed", "The shop is closed."]);
  },

  async "errors have a code, whether to retry, and a sentence"() {
    for (const [request, code] of [[{ agent: "nobody" }, 4005], [{ agent: "echo", threadId: "x".repeat(300) }, 4003]]) {
      const error = await all(runwire.run(request, { url })).catch((caught) => caught);
      same([error instanceof runwire.RunwireError, error.code, error.retry], [true, code, false]);
      same(error.message.length > 10, true);
    }
    const error = await all(runwire.run({ agent: "echo" }, { url, token: "nonsense" })).catch((caught) => caught);
    same([error.code, error.retry], [4016, false]);
  },

  async "a token may be a function"() {
    const events = await all(runwire.run({ agent: "echo", input: "hi" }, { url, token: async () => "dev:carol" }));
    same(events.at(-1).type, "agent_completed");
  },

  async "it comes back by itself, with growing pauses, until it is told to stop"() {
    const pauses = [];
    const abort = new AbortController();
    const onconnection = ({ state, pause, error }) => {
      if (state !== "waiting") return;
      same([error.code, error.retry], [1006, true]);
      pauses.push(pause);
      if (pauses.length === 4) abort.abort();
    };
    const nowhere = "ws://127.0.0.1:1/v1/stream";
    const error = await all(runwire.run({ agent: "echo" }, { url: nowhere, onconnection, signal: abort.signal })).catch((caught) => caught);
    same(error.name, "AbortError");
    pauses.forEach((pause, attempt) => same(pause >= 125 * 2 ** attempt && pause <= 250 * 2 ** attempt, true));
  },

  async "a connection on which nothing comes any more is taken for lost"() {
    const run = runwire.run({ agent: "waiter" }, { url, silence: 0.3 });
    const error = await all(run).catch((caught) => caught);
    same([error.name, error.code, run.seq], ["RunwireError", 1006, 2]);
  },

  async "a run with a window is joined again, and nothing is missing or twice"() {
    const states = [];
    const run = runwire.run(
      { agent: "ticker", resumeWindow: 30 },
      { url, onconnection: ({ state, seq }) => states.push(`${state} ${seq}`) },
    );
    const seqs = [];
    const ticks = [];
    const opened = () => states.filter((state) => state.startsWith("open")).length;
    let cuts = 0;
    for await (const event of run) {
      seqs.push(event.seq);
      if (event.type === "agent_message") ticks.push(event.delta);
      // What had come before the cut is still given: the second one waits until there is a new connection.
      if (event.seq >= [10, 30][cuts] && opened() > cuts) cuts++, run.cut();
    }
    same(seqs, Array.from({ length: 62 }, (_, number) => number + 1));
    same(ticks, Array.from({ length: 60 }, (_, number) => String(number)));
    same([cuts, opened()], [2, 3]);
    same(states.some((state) => Number(state.replace("waiting ", "")) >= 10), true);
  },

  async "a run with a window that is lost before it was heard of is not begun twice"() {
    const Lossy = counted((socket) =>
      socket.addEventListener("message", (event) => (event.stopImmediatePropagation(), socket.close(4000))),
    );
    const run = runwire.run({ agent: "ticker", parameters: { ticks: 5 }, resumeWindow: 30 }, { url, WebSocket: Lossy });
    const id = run.runId;
    const events = await all(run);
    same(events.map(({ seq }) => seq), [1, 2, 3, 4, 5, 6, 7]);
    same([run.runId, Lossy.opened], [id, 2]);
  },

  async "a run with a window that had not begun is begun"() {
    const Mute = counted(closing);
    const events = await all(runwire.run({ agent: "echo", input: "once", resumeWindow: 30 }, { url, WebSocket: Mute }));
    same([events.at(-1).type, Mute.opened], ["agent_completed", 3]);
  },

  async "breaking out of the loop cancels a run with a window too"() {
    let pid;
    const run = runwire.run({ agent: "pid", resumeWindow: 30 }, { url });
    for await (const event of run) if ((pid = event.delta)) break;
    const types = (await all(runwire.resume({ runId: run.runId }, { url }))).map(({ type }) => type);
    same(types, ["agent_started", "agent_message", "agent_cancelled"]);
    return { pid: Number(pid) };
  },

  async "a run that is left goes on without us, and is joined again where it was left"() {
    const run = runwire.run({ agent: "ticker", resumeWindow: 30, parameters: { ticks: 20 } }, { url });
    const seen = [];
    for await (const { seq } of run) {
      seen.push(seq);
      if (seq === 5) run.leave();
    }
    same(seen.at(-1) < 22, true);
    const rest = await all(runwire.resume({ runId: run.runId, afterSeq: run.seq }, { url }));
    same([...seen, ...rest.map(({ seq }) => seq)], Array.from({ length: 22 }, (_, number) => number + 1));
    same(rest.at(-1).type, "agent_completed");
  },

  async "a run without a window that is left ends"() {
    let pid;
    const run = runwire.run({ agent: "pid" }, { url });
    for await (const event of run) if ((pid = event.delta)) run.leave();
    return { pid: Number(pid) };
  },

  async "an id that another run has is asked for with pauses, and not all the time"() {
    const Counted = counted();
    const holder = runwire.run({ agent: "waiter", runId: crypto.randomUUID() }, { url });
    const first = holder[Symbol.asyncIterator]();
    await first.next();
    const abort = new AbortController();
    const asked = { agent: "echo", runId: holder.runId, resumeWindow: 30 };
    setTimeout(() => abort.abort(new Error("enough")), 700);
    await all(runwire.run(asked, { url, WebSocket: Counted, signal: abort.signal })).catch(() => {});
    same(Counted.opened <= 8, true);
    await first.return();
  },

  async "the agents there are can be listed"() {
    const [agent] = (await runwire.agents({ url })).filter(({ name }) => name === "waiter");
    same([agent.isolation, agent.description.startsWith("Says that it waits")], ["process", true]);
  },

  async "what is not there is said at once, also of a run with a window"() {
    const Counted = counted();
    const error = await all(runwire.run({ agent: "nobody", resumeWindow: 30 }, { url, WebSocket: Counted })).catch((caught) => caught);
    same([error.code, Counted.opened], [4005, 1]);
  },

  async "a silent connection of a run with a window is given up, and the run is joined again"() {
    const opens = [];
    const run = runwire.run(
      { agent: "waiter", resumeWindow: 0.5 },
      { url, silence: 0.7, onconnection: ({ state, seq }) => state === "open" && opens.push(seq) },
    );
    for await (const event of run) if (event.type === "agent_message") setTimeout(() => run.cancel(), 1200);
    same([run.seq, opens.length >= 2, opens[1]], [3, true, 2]);
  },

  async "a run that is cancelled before it is known to have begun does not begin"() {
    const Mute = counted(closing);
    const onconnection = ({ state }) => state === "waiting" && run.cancel();
    const run = runwire.run({ agent: "echo", resumeWindow: 30 }, { url, WebSocket: Mute, onconnection });
    same(await all(run), []);
    const error = await all(runwire.resume({ runId: run.runId }, { url })).catch((caught) => caught);
    same(error.code, 4005);
  },

  async "aborting cancels a run with a window, even while there is no connection"() {
    const abort = new AbortController();
    const run = runwire.run(
      { agent: "pid", resumeWindow: 30 },
      { url, signal: abort.signal, onconnection: ({ state }) => state === "waiting" && abort.abort(new Error("enough")) },
    );
    let pid;
    try {
      for await (const event of run) {
        pid = event.delta ?? pid;
        if (pid) run.cut();
      }
    } catch (error) {
      same(error.message, "enough");
    }
    return { pid: Number(pid) };
  },

  async "a run can be joined by another, who takes over"() {
    const run = runwire.run({ agent: "ticker", resumeWindow: 30, parameters: { ticks: 20 } }, { url });
    const first = run[Symbol.asyncIterator]();
    await first.next();
    const events = await all(runwire.resume({ runId: run.runId, afterSeq: 1 }, { url }));
    same(await all(runwire.resume({ runId: run.runId, afterSeq: events.at(-1).seq }, { url })), []);
    same([events[0].seq, events.at(-1).seq], [2, 22]);
    await first.return();
  },

  async "a run that was about to begin when it was asked for again, and then did not, is begun anew"() {
    const asked = [];
    const refusals = [4006, 4005];
    class Unsure extends WebSocket {
      send(data) {
        asked.push(Object.keys(JSON.parse(data)).at(-1));
        const code = refusals.shift();
        if (code) this.dispatchEvent(Object.assign(new Event("close"), { code, reason: "" }));
        else super.send(data);
      }
    }
    const events = await all(runwire.run({ agent: "echo", resumeWindow: 30 }, { url, WebSocket: Unsure }));
    same(events.at(-1).type, "agent_completed");
    same(asked, ["run", "resume", "run"]);
  },

  async "that a run was lost is told in the gateway's words"() {
    const Losing = refusing(4005, "Your run was lost.");
    const lost = { runId: "3e9f5d0c-6a4b-4f6e-9d0b-2f8b1c7a5e41", afterSeq: 2 };
    const error = await all(runwire.resume(lost, { url, WebSocket: Losing })).catch((caught) => caught);
    same([error.name, error.code, error.message, error.retry], ["RunwireError", 4005, "Your run was lost.", false]);
  },

  async "a run without a window that breaks off is told lost"() {
    const run = runwire.run({ agent: "waiter" }, { url });
    const seen = [];
    try {
      for await (const { type } of run) {
        seen.push(type);
        if (type === "agent_message") run.cut();
      }
      throw new Error("it went on");
    } catch (error) {
      same([error.name, error.code, error.retry, run.seq], ["RunwireError", 1006, true, 2]);
    }
  },
});

async function all(run) {
  const events = [];
  for await (const event of run) events.push(event);
  return events;
}

function same(found, expected) {
  const [a, b] = [JSON.stringify(found), JSON.stringify(expected)];
  if (a !== b) throw new Error(`${a} is not ${b}`);
}

// A WebSocket that counts how often it is opened, and does something to the first.
function counted(toFirst = () => {}) {
  return class Counted extends WebSocket {
    static opened = 0;
    constructor(...all) {
      super(...all);
      if (Counted.opened++ === 0) toFirst(this);
    }
  };
}

// Closes a socket instead of sending.
function closing(socket) {
  socket.send = () => socket.close(4000);
}

// A WebSocket to a gateway that refuses what it is asked.
function refusing(code, reason) {
  return class Refusing extends EventTarget {
    readyState = WebSocket.OPEN;
    constructor() {
      super();
      queueMicrotask(() => this.dispatchEvent(new Event("open")));
    }
    send() {
      this.dispatchEvent(Object.assign(new Event("close"), { code, reason }));
    }
    close() {}
  };
}
