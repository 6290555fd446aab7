// The console: starts runs, and shows each as a timeline.
import { answer, resume, run, runs } from "./runwire.js";
import { asForm, inWords as settled } from "./questions.js";

const QUIET = 2000; // milliseconds without an event until a run is said to be still working
const FRAMES = 500; // raw frames that are kept to be shown
const ENTRIES = 1000; // entries that a timeline has
const LONGEST = 100_000; // characters that are shown of what an agent goes on to say
const WINDOW = 60; // seconds that a run outlives this page
const KEPT = 20; // runs that are shown again when the page is loaded again
const CUT = "…"; // begins a text whose beginning is not shown any more
const STRANGER = 4016; // who is not signed in
const GONE = [4005, 4011]; // the run, or its beginning, is not there any more
const NARROW = matchMedia("(max-width: 720px)"); // where a run begins below what is in sight
const SLOWLY = { triage: '{"pace": 0.15}' }; // parameters that leave the time to cancel or cut a run by hand

const $ = (id) => document.getElementById(id);
const agents = new Map();
let suggested = ""; // the parameters that we have filled in, and not the user
const growing = new Set(); // boxes that will be drawn anew
let conversation = []; // that the next run goes on with

async function findAgents() {
  const token = $("token").value.trim();
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  try {
    const answer = await fetch("/v1/agents", { headers });
    if (!answer.ok) throw new Error((await answer.text()).trim());
    const found = (await answer.json()).agents ?? [];
    const chosen = $("agent").value || localStorage.getItem("agent");
    agents.clear();
    for (const agent of found) agents.set(agent.name, agent);
    $("agent").replaceChildren(...found.map(({ name }) => new Option(name, name)));
    $("agent").value = agents.has(chosen) ? chosen : agents.has("triage") ? "triage" : found[0]?.name;
    showEngine("up", `engine ready, ${found.length} ${found.length === 1 ? "agent" : "agents"}`);
  } catch (error) {
    showEngine("down", error.message);
  }
  describe();
}

async function watchEngine() {
  await findAgents();
  await findRuns();
  setTimeout(watchEngine, $("engine").className === "up" ? 5000 : 1000);
}

const elsewhere = new Map(); // entries of runs that are not on this page, by their ids

/** Show one's runs that go on without this page: what they ask can be answered here, too. */
async function findRuns() {
  const token = $("token").value.trim() || undefined;
  const found = await runs({ token }).catch(() => []);
  const here = new Set([...document.querySelectorAll(".run .id")].map(({ textContent }) => textContent));
  const there = found.filter(({ runId, isOver }) => !isOver && !here.has(runId));
  for (const [runId, entry] of elsewhere) {
    if (there.some((each) => each.runId === runId)) continue;
    entry.remove();
    elsewhere.delete(runId);
  }
  for (const each of there) showElsewhere(each, token);
  $("elsewhere").hidden = there.length === 0;
}

function showElsewhere({ runId, agent, threadId, started, questions }, token) {
  const entry = elsewhere.get(runId) ?? text("li", "", "");
  if (!elsewhere.has(runId)) {
    const since = new Date(started).toLocaleTimeString();
    const join = text("button", "", "Show here");
    join.type = "button";
    join.addEventListener("click", () => {
      entry.remove();
      elsewhere.delete(runId);
      $("elsewhere").hidden = elsewhere.size === 0;
      new Card({ agent, runId, threadId: threadId || undefined, input: "" }).join();
    });
    entry.append(text("span", "", `${agent}, since ${since} `), join);
    elsewhere.set(runId, entry);
    $("elsewhere").querySelector("ul").append(entry);
  }
  for (const form of entry.querySelectorAll("form")) {
    if (!questions.some(({ requestId }) => requestId === form.dataset.request)) form.remove();
  }
  for (const question of questions) {
    if (entry.querySelector(`[data-request="${question.requestId}"]`)) continue;
    entry.append(asForm(question, (said) => answer({ runId, requestId: question.requestId, ...said }, { token })));
  }
}

function showEngine(state, text) {
  if ($("engine").textContent === text) return; // said once, or it would be read aloud again and again
  $("engine").className = state;
  $("engine").textContent = text;
}

function describe() {
  $("description").textContent = agents.get($("agent").value)?.description ?? "";
  const suggestion = SLOWLY[$("agent").value] ?? "";
  if ($("parameters").value === suggested) $("parameters").value = suggestion; // what the user wrote stays
  suggested = suggestion;
  $("example").hidden = $("agent").value !== "triage";
  showBesides();
}

/** What is asked for, besides the question. Throws when the parameters are none. */
function besides() {
  const history = conversation.length ? conversation : undefined;
  return { parameters: parameters(), threadId: $("thread").value.trim() || undefined, history };
}

function parameters() {
  const written = $("parameters").value.trim();
  if (!written) return undefined;
  if (!written.startsWith("{")) throw new SyntaxError("It has to begin with {.");
  return JSON.parse(written);
}

/** Say it where it is seen although it is folded away. */
function showBesides() {
  try {
    $("besides").textContent = inWords(besides());
  } catch {
    $("besides").textContent = ""; // it is still being written
  }
}

function inWords({ parameters, threadId, history = [] }) {
  const words = [parameters && JSON.stringify(parameters), threadId && `thread ${threadId}`];
  return [...words, history.length && `after ${history.length} messages`].filter(Boolean).join(", ");
}

function showWrong(sentence) {
  $("wrong").textContent = sentence;
  $("parameters").setAttribute("aria-invalid", String(sentence !== ""));
}

/** Let the next run go on with a conversation, or begin one. */
function goOn(messages) {
  conversation = messages;
  $("history").replaceChildren(
    ...messages.map(({ role, text: said }) => {
      const entry = text("li", "", said);
      entry.prepend(text("strong", "", role === "ROLE_USER" ? "User: " : "Agent: "));
      return entry;
    }),
  );
  $("conversation").hidden = messages.length === 0;
  showBesides();
}

/** What a page that is loaded again has to know: its runs, and who is asking. Kept as long as its tab is there. */
const kept = {
  read: () => JSON.parse(sessionStorage.getItem("runs") ?? "[]"),
  write(runs) {
    try {
      sessionStorage.setItem("runs", JSON.stringify(runs.slice(-KEPT)));
    } catch {
      // there is no room for them: then the page that is loaded again won't know them
    }
  },
  add: (asked) => kept.write([...kept.read(), asked]),
  drop: (asked) => kept.write(kept.read().filter(({ runId }) => runId !== asked.runId)),
};

/** One run on the page. */
class Card {
  constructor(asked) {
    this.asked = asked;
    this.element = $("run").content.firstElementChild.cloneNode(true);
    this.part(".name").textContent = asked.agent;
    this.part(".question").textContent = asked.input;
    this.part(".besides").textContent = inWords(asked);
    this.part(".cancel").addEventListener("click", () => this.cancel());
    this.part(".cut").addEventListener("click", () => this.run.cut());
    this.part(".continue").addEventListener("click", () => this.goOn());
    this.part(".again").addEventListener("click", () => new Card({ ...this.asked, runId: undefined }).start());
    this.part(".close").addEventListener("click", () => this.remove());
    this.part(".raw").addEventListener("click", () => this.toggleRaw());
    this.frames = [];
    this.dropped = 0; // entries that the timeline doesn't have any more
    this.output = "";
    this.heard = performance.now(); // when the last event came
    this.alive = false; // whether a heartbeat came since
  }

  part(selector) {
    return this.element.querySelector(selector);
  }

  /** Begin the run. */
  start() {
    const followed = this.follow((options) => {
      const begun = run({ ...this.asked, resumeWindow: WINDOW }, options);
      this.asked.runId = begun.runId;
      kept.add(this.asked);
      return begun;
    });
    if (NARROW.matches) this.element.scrollIntoView();
    return followed;
  }

  /** Show a run that began before this page was loaded, from its beginning. */
  join() {
    this.joins = true;
    return this.follow((options) => resume({ runId: this.asked.runId, resumeWindow: WINDOW }, options));
  }

  async follow(begin) {
    $("empty").hidden = true;
    $("runs").prepend(this.element);
    this.show("running", "connecting …");
    const watch = setInterval(() => this.showQuiet(), 250);
    this.run = begin({
      token: $("token").value.trim() || undefined,
      onconnection: (connection) => this.connection(connection),
      onheartbeat: () => (this.alive = true),
      onframe: (frame) => this.frame(frame),
    });
    try {
      for await (const event of this.run) this.event(event);
    } catch (error) {
      this.add("failed", "", error.message);
      const begun = this.joins || this.run.seq > 0; // one that was asked for again has begun, whatever is refused now
      const what = error.retry ? "connection lost" : begun ? "not to be had" : "not started";
      this.show("lost", GONE.includes(error.code) ? "no longer there" : what);
      if (error.code !== STRANGER) kept.drop(this.asked); // whoever signs in again sees it again
    } finally {
      clearInterval(watch);
      this.part(".quiet").hidden = true;
      this.part(".cancel").hidden = true;
      this.part(".cut").hidden = true;
      this.part(".again").hidden = false;
      this.part(".close").hidden = false;
    }
  }

  cancel() {
    this.part(".cancel").disabled = true;
    this.run.cancel();
  }

  /** Put this conversation into the form. */
  goOn() {
    const { agent, input, parameters, threadId, history = [] } = this.asked;
    if (agents.has(agent)) $("agent").value = agent;
    describe();
    $("parameters").value = parameters ? JSON.stringify(parameters) : "";
    $("thread").value = threadId ?? "";
    goOn([...history, { role: "ROLE_USER", text: input }, { role: "ROLE_ASSISTANT", text: this.output }]);
    $("more").open = true;
    $("input").focus();
    $("input").select();
  }

  remove() {
    kept.drop(this.asked);
    this.element.remove();
    $("empty").hidden = $("runs").querySelector(".run") !== null;
    $("input").focus();
  }

  connection({ state, runId, pause, seq }) {
    this.part(".id").textContent = runId ?? "";
    if (state === "open") this.show("running", seq ? `continued at ${seq}` : "running");
    if (state === "waiting") this.show("running", `reconnecting in ${(pause / 1000).toFixed(1)} s …`);
    if (state === "reconnecting") this.show("running", "reconnecting …");
  }

  event(event) {
    this.heard = performance.now();
    this.alive = false;
    const depth = event.agent.split("/").length - 1;
    keepEnd(this.part(".happened"));
    keepEnd(this.part(".answer"));
    this[event.type]?.(event, depth);
  }

  agent_started(event, depth) {
    if (depth) this.add("started", event, `${event.agent.split("/").pop()} is asked: ${event.input}`);
  }

  agent_thinking(event) {
    this.stream("thinking", event);
  }

  agent_message(event, depth) {
    if (depth) this.stream("message", event);
    else grow(this.part(".answer"), event.delta, event.seq);
  }

  tool_executing(event) {
    const entry = this.add("tool", event, "");
    const name = document.createElement("strong");
    name.textContent = event.tool;
    entry.append(name, details("arguments", event.arguments));
    entry.dataset.call = event.callId;
  }

  tool_completed(event) {
    const begun = this.element.querySelector(`[data-call="${CSS.escape(event.callId)}"]`);
    const entry = begun ?? this.add("tool", event, event.tool);
    if (event.error !== undefined) entry.append(text("p", "failed", event.error));
    else entry.append(details("result", event.result));
    entry.querySelector(".time").textContent = seconds(event.elapsed);
  }

  /** Take back what was said since the agent had saved: another engine says it anew. */
  agent_recovered(event) {
    const gone = takeBack(this.part(".answer"), event.checkpointSeq);
    for (const entry of this.part(".timeline").querySelectorAll(".thinking, .message")) {
      takeBack(entry, event.checkpointSeq);
      if (!entry.lastChild.data) entry.remove();
    }
    const entry = this.add("recovered", event, `Its engine was lost. Another one goes on: attempt ${event.attempt}.`);
    if (gone) entry.append(details("what it had said since is void", gone));
  }

  input_requested(event) {
    const what = event.tool ? `asks whether it may call ${event.tool}` : `asks: ${event.message}`;
    const id = CSS.escape(event.requestId);
    this.element.querySelector(`form[data-request="${id}"]`)?.remove(); // asked again after its engine was lost
    if (!this.element.querySelector(`[data-question="${id}"]`)) {
      this.add("asks", event, what).dataset.question = event.requestId;
    }
    const form = asForm(event, (said) => this.run.answer(event.requestId, said));
    this.part(".questions").append(form);
    this.show("running", "waits for you");
    const writes = document.activeElement?.matches("input, textarea, select");
    if (!writes) form.querySelector("input, select, button").focus();
  }

  input_answered(event) {
    this.element.querySelector(`[data-request="${CSS.escape(event.requestId)}"]`)?.remove();
    if (!this.part(".questions").childElementCount) this.show("running", "running");
    const asked = this.element.querySelector(`[data-question="${CSS.escape(event.requestId)}"]`);
    const entry = asked ?? this.add("asks", event, "");
    entry.append(text("p", "", settled(event)));
    if (Object.keys(event.content).length) entry.append(details("answer", event.content));
  }

  agent_reported(event) {
    this.add("reported", event, event.name).append(details("data", event.data));
  }

  model_called(event) {
    const [given, said] = [event.inputTokens, event.outputTokens].map((tokens) => tokens.toLocaleString("en"));
    const entry = this.add("reported", event, `${event.model}: ${given} tokens in, ${said} out`);
    entry.querySelector(".time").textContent = seconds(event.elapsed);
  }

  agent_completed(event, depth) {
    if (!depth) this.answer(event);
    this.end(event, depth, "completed", "done");
  }

  /** Show what the run returned, where that is not what it said. */
  answer(event) {
    const said = this.part(".answer").textContent;
    const differs = !said.startsWith(CUT) && event.output.trim() !== said.trim();
    if (!said) grow(this.part(".answer"), event.output);
    else if (differs && event.output.trim()) grow(this.add("reported", event, "answer: "), event.output);
    if (Object.keys(event.data).length) this.add("reported", event, "answer").append(details("data", event.data));
    this.output = event.output || this.part(".answer").textContent;
    this.part(".continue").hidden = false;
  }

  agent_failed(event, depth) {
    this.end(event, depth, "failed", event.message);
    if (!depth && event.retryable) this.part(".again").textContent = "Try again";
  }

  agent_cancelled(event, depth) {
    this.end(event, depth, "cancelled", event.reason);
  }

  end(event, depth, kind, what) {
    const name = event.agent.split("/").pop();
    this.add(kind, event, `${name}: ${what}`).querySelector(".time").textContent = seconds(event.elapsed);
    if (depth) return;
    this.show(kind, kind);
    this.part(".questions").replaceChildren();
  }

  /** Add to the entry that the same agent is writing, or begin one. */
  stream(kind, event) {
    const last = this.part(".timeline").lastElementChild;
    const same = last?.dataset.of === `${kind} ${event.agent}`;
    const entry = same ? last : this.add(kind, event, "");
    entry.dataset.of = `${kind} ${event.agent}`;
    grow(entry, event.delta, event.seq);
  }

  add(kind, event, what) {
    const depth = Math.min((event.agent ?? "").split("/").length - 1, 3);
    const entry = document.createElement("li");
    entry.className = `${kind} depth-${depth}`;
    entry.append(text("span", "time", ""), what);
    this.part(".timeline").append(entry);
    if (this.part(".timeline").childElementCount > ENTRIES) this.dropOldest();
    return entry;
  }

  dropOldest() {
    this.part(".timeline").firstElementChild.remove();
    this.part(".dropped").hidden = false;
    this.part(".dropped").textContent = `Older entries that are not shown any more: ${++this.dropped}`;
  }

  show(state, words) {
    this.element.className = `run ${state}`;
    this.part(".state").textContent = words;
  }

  showQuiet() {
    const quiet = performance.now() - this.heard;
    this.part(".quiet").hidden = quiet < QUIET || this.part(".questions").childElementCount > 0;
    this.part(".quiet").textContent = `${this.alive ? "still working" : "quiet"}, ${Math.round(quiet / 1000)} s`;
  }

  frame(frame) {
    this.frames.push(frame);
    if (this.frames.length > FRAMES) this.frames.shift();
    if (!this.part(".frames").hidden) this.showFrames();
  }

  toggleRaw() {
    const shown = this.part(".frames").hidden;
    this.part(".frames").hidden = !shown;
    this.part(".raw").setAttribute("aria-pressed", String(shown));
    if (shown) this.showFrames();
  }

  showFrames() {
    this.part(".frames").textContent = this.frames.join("\n");
  }
}

/** Keep a box's end in sight, if it is. To be called before the box grows. */
function keepEnd(box) {
  if (growing.has(box)) return; // once a picture, since it costs a layout
  growing.add(box);
  const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 8; // or somebody reads further up
  requestAnimationFrame(() => {
    growing.delete(box);
    if (isAtEnd) box.scrollTop = box.scrollHeight;
  });
}

function details(name, value) {
  const element = document.createElement("details");
  const shown = JSON.stringify(value ?? null, null, 2);
  element.append(text("summary", "", shown.length < 60 ? `${name}: ${JSON.stringify(value ?? null)}` : name), text("pre", "", shown));
  return element;
}

/** Where each piece of a text ends that grows, by its event's number. */
const pieces = new WeakMap();

/** Take back what was added to a text after an event, and return it. */
function takeBack(element, seq) {
  const ends = pieces.get(element) ?? [];
  const all = ends.at(-1)?.at ?? 0;
  while (ends.at(-1)?.seq > seq) ends.pop();
  const end = element.lastChild;
  if (!(end instanceof Text)) return "";
  const from = Math.max(end.length - (all - (ends.at(-1)?.at ?? 0)), 0);
  const gone = end.data.slice(from);
  end.deleteData(from, gone.length);
  return gone;
}

/** Add to the text at an element's end. Of one that is too long its beginning goes. */
function grow(element, more, seq = 0) {
  const end = element.lastChild ?? element.appendChild(new Text());
  end.appendData(more);
  if (!pieces.has(element)) pieces.set(element, []);
  const ends = pieces.get(element);
  ends.push({ seq, at: (ends.at(-1)?.at ?? 0) + more.length });
  if (ends.length > 2 * LONGEST) ends.splice(0, LONGEST);
  if (end.length > LONGEST) end.replaceData(0, end.length - LONGEST + 1, CUT);
}

function text(tag, kind, content) {
  const element = document.createElement(tag);
  element.className = kind;
  element.textContent = content;
  return element;
}

function seconds(elapsed) {
  return elapsed ? `${parseFloat(elapsed).toFixed(2)} s` : "";
}

$("ask").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  try {
    new Card({ agent: $("agent").value, input: $("input").value.trim(), ...besides() }).start();
    goOn([]);
  } catch (error) {
    $("more").open = true;
    showWrong(`Parameters have to be a JSON object, like {"pace": 0.1}. ${error.message}`);
    $("parameters").focus();
  }
});
$("input").addEventListener("keydown", (pressed) => {
  if (pressed.key === "Enter" && (pressed.ctrlKey || pressed.metaKey)) $("ask").requestSubmit();
});
$("agent").addEventListener("change", () => {
  localStorage.setItem("agent", $("agent").value);
  describe();
});
$("more").addEventListener("input", () => {
  showWrong("");
  showBesides();
});
$("example").querySelector("button").addEventListener("click", ({ target }) => {
  $("input").value = target.textContent;
  $("ask").requestSubmit();
});
$("afresh").addEventListener("click", () => {
  goOn([]);
  $("input").focus();
});
$("token").addEventListener("change", () => {
  sessionStorage.setItem("token", $("token").value);
  findAgents();
  findRuns();
});
$("token").value = sessionStorage.getItem("token") ?? "";
for (const asked of kept.read()) new Card(asked).join();
await watchEngine();
