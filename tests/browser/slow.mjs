// Checks of runwire.js with loops that are slower than their runs, in Node and in Chromium alike.
const SMALL = 64 * 1024; // characters that may wait

export const checks = (runwire, url) => ({
  async "a run with a window is joined again when what waited was taken, and nothing is missing or twice"() {
    const states = [];
    const onconnection = ({ state }) => states.push(state);
    const seqs = [];
    for await (const { seq, type } of runwire.run(long(20_000, 60), { url, buffer: SMALL, onconnection })) {
      seqs.push(seq);
      if (seq % 1000 === 0) await pause(50);
      if (type === "agent_completed") break;
    }
    whole(seqs, 20_002);
    same([states.filter((state) => state === "open").length > 3, states.includes("waiting")], [true, false]);
  },

  async "nor when a browser closes its sockets long after it was told to, and reads on in the meantime"() {
    class Late extends WebSocket {
      close(...end) {
        setTimeout(() => super.close(...end), 500);
      }
    }
    const seqs = [];
    for await (const { seq } of runwire.run(long(20_000, 60), { url, buffer: SMALL, WebSocket: Late })) {
      seqs.push(seq);
      if (seq % 1000 === 0) await pause(50);
    }
    whole(seqs, 20_002);
  },

  async "nor when what waits takes longer than the window"() {
    const seqs = [];
    for await (const { seq } of runwire.run(long(1000, 3), { url, buffer: 4 * SMALL })) {
      seqs.push(seq);
      await pause(9); // some four seconds for what waits
    }
    whole(seqs, 1002);
  },

  async "a run with a window that is over before what waits was taken ends as it ended"() {
    const run = runwire.run(long(1000, 60), { url, buffer: SMALL });
    const states = [];
    const seqs = [];
    for await (const { seq } of run) {
      if (seqs.push(seq) > 1) continue;
      // Another one reads it to its end: what follows is all there when this one comes back.
      await pause(100);
      for await (const { type } of runwire.resume({ runId: run.runId, afterSeq: seq }, { url })) states.push(type);
    }
    whole(seqs, 1002);
    same(states.at(-1), "agent_completed");
  },

  async "a run with a window is cancelled while what waits is taken"() {
    const { run, events } = await left(runwire.run(flood(60), { url, buffer: SMALL }));
    run.cancel();
    let last;
    for (let next; !(next = await events.next()).done; ) last = next.value;
    same(last.type, "agent_cancelled");
  },

  async "leaving a run with a window ends it while what waits is taken"() {
    const { pid, events } = await left(runwire.run(flood(60), { url, buffer: SMALL }));
    await events.return();
    return { pid };
  },

  async "a run that nothing holds back ends with an error, after all that waited"() {
    const { run, pid, events } = await left(runwire.run(flood(), { url, buffer: SMALL, WebSocket }));
    const seqs = Array.from({ length: run.seq }, (_, number) => number + 1);
    const error = await (async () => {
      for (let next; !(next = await events.next()).done; ) seqs.push(next.value.seq);
    })().catch((caught) => caught);
    same([error.name, error.code], ["RunwireError", 4008]);
    same(error.message, "More came than was taken: read faster, or give the run a resumeWindow.");
    same(seqs.length > 500, true);
    whole(seqs, seqs.length);
    return { pid };
  },

  async "a frame may be larger than all that may wait"() {
    const events = [];
    const asked = { agent: "echo", input: "x".repeat(300_000), parameters: { times: 3 } };
    for await (const event of runwire.run(asked, { url, buffer: SMALL, WebSocket })) events.push(event);
    same(events.at(-1).type, "agent_completed");
  },

  async "leaving a run that is held back ends it"() {
    const { pid, events } = await left(runwire.run(flood(), { url }));
    await events.return();
    return { pid };
  },

  async "aborting a run that is held back ends it, and gives no event more"() {
    const abort = new AbortController();
    const { pid, events } = await left(runwire.run(flood(), { url, signal: abort.signal }));
    abort.abort(new Error("enough"));
    same((await events.next().catch((caught) => caught)).message, "enough");
    return { pid };
  },

  async "a run that is held back breaks off when it is cut"() {
    const { run, pid, events } = await left(runwire.run(flood(), { url, buffer: SMALL }));
    const seqs = Array.from({ length: run.seq }, (_, number) => number + 1);
    run.cut();
    const error = await (async () => {
      for (let next; !(next = await events.next()).done; ) seqs.push(next.value.seq);
    })().catch((caught) => caught);
    same([error.name, error.code], ["RunwireError", globalThis.WebSocketStream ? 1006 : 4008]); // 4008: it is over
    whole(seqs, seqs.length);
    return { pid };
  },
});

// A run that says a lot, with a lot in each event.
function long(times, resumeWindow) {
  return { agent: "echo", input: "x".repeat(500), parameters: { times }, resumeWindow };
}

// A run that says a million things.
function flood(resumeWindow) {
  return { agent: "flood", resumeWindow };
}

// Takes a hundred events slowly, and leaves the run as it is then.
async function left(run) {
  const events = run[Symbol.asyncIterator]();
  let pid;
  for (let taken = 0; taken < 100; taken++) {
    const { value } = await events.next();
    pid ??= value.delta;
    await pause(5);
  }
  return { run, events, pid: Number(pid) };
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

function whole(seqs, length) {
  const wrong = seqs.findIndex((seq, index) => seq !== index + 1);
  same([wrong, seqs.length], [-1, length]);
}

function same(found, expected) {
  const [a, b] = [JSON.stringify(found), JSON.stringify(expected)];
  if (a !== b) throw new Error(`${a} is not ${b}`);
}
