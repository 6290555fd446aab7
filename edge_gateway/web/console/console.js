// The console: conversations with agents, and what their runs do, while they do it. Put together here.
import { agents as listed } from "../runwire.js";
import { Call } from "./call.js";
import { button, element, keepEnd, say, sure } from "./elements.js";
import { Elsewhere } from "./elsewhere.js";
import { Live } from "./live.js";
import { Network } from "./network.js";
import { Parameters } from "./parameters.js";
import { SideBySide } from "./side.js";
import { local, session } from "./storage.js";
import { Threads, historyOf } from "./threads.js";
import { Timeline } from "./timeline.js";
import { Turn } from "./turn.js";
import { Who, hearToken } from "./who.js";

const ALIVE = 5000; // milliseconds between two looks whether the engine is there
const AWAY = 1000; // the same while it isn't
const [STRANGER, FORBIDDEN] = [401, 403];
const FOLLOWED = "runs"; // under which this tab keeps which runs it follows: another one is not to take them over
const MOST_LIVES = 50; // runs of which this page knows all; of those that are over the oldest go
const ASKS = new Set(["input_requested", "input_answered"]);
const EXAMPLES = {
  triage: ["My invoice shows a wrong amount, and I need it corrected today!", "I want my money back!"],
  try_quitting: ["End your own process"],
  try_crashing: ["Crash"],
};

const $ = (id) => document.getElementById(id);
const stream = new URL("/v1/stream", location.href.replace(/^http/, "ws")).href;

class Console {
  who = new Who();
  agents = new Map();
  turns = []; // of the conversation that is shown
  #lives = new Map(); // runs that this page follows, by their ids
  #engine = ""; // where it is called, where that may be known
  #chosen = null;

  constructor() {
    this.parameters = new Parameters($("along"));
    this.timeline = new Timeline($("timeline"));
    this.network = new Network($("network"), { stream, who: this.who });
    const places = () => ({ stream, engine: this.#engine || "ENGINE:50051" });
    this.call = new Call($("call"), { places, who: this.who });
    this.side = new SideBySide($("side"), this.who);
    this.elsewhere = new Elsewhere($("elsewhere"), {
      who: this.who,
      isHere: (runId) => this.#lives.has(runId) || this.side.lanes.some((lane) => lane.runId === runId),
      show: (run) => this.#showFromElsewhere(run),
    });
    this.forget = sure("Forget all of them", "Really all? Press again", () => {
      this.threads.forget();
      this.open(this.threads.begin(this.#firstAgent()));
    });
    $("none").after(this.forget);
    this.#listen();
  }

  async begin() {
    hearToken((token) => this.signIn(token));
    this.who.be(session.getItem("user") ?? "");
    await this.signIn();
    this.#draw();
    this.#watch();
  }

  /** Begins anew for whoever it is now. */
  async signIn(token) {
    if (token !== undefined) this.who.token = token;
    this.#change();
    await this.#learn();
    this.#change(); // of whom it is known only now how they are called
    const isDev = this.who.isDevelopment;
    $("user").firstChild.data = isDev ? "User " : "Token ";
    Object.assign($("token"), { type: isDev ? "text" : "password", placeholder: isDev ? "anonymous" : "not signed in" });
    $("token").value = isDev ? this.who.token.replace("dev:", "") : this.who.token;
    if (isDev) session.setItem("user", this.who.token);
    await this.#findAgents();
    $("user").dataset.name = this.who.name;
    await this.elsewhere.find();
  }

  /** Shows nothing of another user's any more. Their runs go on, and are joined when they are back. */
  #change() {
    if (this.threads?.user === this.who.name) return;
    for (const live of this.#lives.values()) live.letGo();
    this.#lives.clear();
    this.elsewhere.clear();
    if (!this.who.isDevelopment) this.side.clear();
    $("input").value = this.timeline.find.value = "";
    this.threads = new Threads(this.who.name);
    this.open(this.threads.list[0] ?? this.threads.begin(this.#firstAgent()));
  }

  /** Learns what there is to know of the gateway: whether this is development, and where traces go. */
  async #learn() {
    const headers = this.who.token ? { Authorization: `Bearer ${this.who.token}` } : {};
    const response = await fetch("/v1/console", { headers }).catch(() => null);
    if (response && [STRANGER, FORBIDDEN].includes(response.status)) this.who.isDevelopment = false;
    if (!response?.ok) return;
    const { isDevelopment = false, engine = "", tracePage = "" } = await response.json();
    Object.assign(this.who, { isDevelopment, tracePage });
    this.#engine = engine;
  }

  async #watch() {
    try {
      if (this.who.isDevelopment === null) await this.signIn();
      await this.#findAgents();
      await this.elsewhere.find();
    } finally {
      setTimeout(() => this.#watch(), $("engine").className === "up" ? ALIVE : AWAY);
    }
  }

  async #findAgents() {
    try {
      const found = await listed({ token: this.who.token || undefined });
      const names = found.map(({ name }) => name);
      const isOther = names.join() !== [...this.agents.keys()].join();
      this.agents = new Map(found.map((agent) => [agent.name, agent]));
      if (isOther) {
        const chosen = $("agent").value;
        $("agent").replaceChildren(...names.map((name) => new Option(name, name)));
        this.#chooseAgent(this.agents.has(chosen) ? chosen : this.#firstAgent());
        this.#showExamples();
      }
      this.side.know(found);
      this.#sayEngine("up", `engine ready, ${found.length} ${found.length === 1 ? "agent" : "agents"}`);
    } catch (error) {
      this.#sayEngine("down", error.code === STRANGER ? "You are not signed in." : error.message);
    }
  }

  #firstAgent() {
    const remembered = local.getItem("agent");
    if (this.agents.has(remembered)) return remembered;
    return this.agents.has("triage") ? "triage" : (this.agents.keys().next().value ?? "");
  }

  #sayEngine(state, words) {
    if ($("engine").textContent === words) return; // said once, or it would be read aloud again and again
    $("engine").className = state;
    $("engine").textContent = words;
  }

  // Conversations

  /** Shows a conversation. Runs that this page follows go on meanwhile. */
  open(thread) {
    this.thread = thread;
    this.#editing = null;
    $("editing").hidden = true;
    this.turns = thread.turns.map((turn) => this.#turn(turn));
    $("turns").replaceChildren(...this.turns.map((turn) => turn.element), $("empty") ?? this.empty);
    this.empty ??= $("empty");
    this.empty.hidden = this.turns.length > 0;
    if (thread.agent && this.agents.has(thread.agent)) this.#chooseAgent(thread.agent, thread.parameters);
    thread.isNews = false;
    this.#listThreads();
    this.choose(this.turns.at(-1) ?? null);
    $("turns").scrollTop = $("turns").scrollHeight;
  }

  #turn(turn) {
    const goesOn = turn.state === "running" && followed().includes(turn.runId);
    const live = this.#lives.get(turn.runId) ?? (goesOn ? this.#join(turn) : null);
    return new Turn(turn, live, this);
  }

  /** Follows a run that has begun; one that another tab follows only if that is asked for, since it is taken from there. */
  #join(turn, isAsked = false) {
    const live = new Live({ ...turn }, this.who);
    this.#follow(turn, live);
    if (isAsked) live.join(turn.seen);
    else held(turn.runId, (isFree) => (isFree ? live.join(turn.seen) : this.#leaveToOthers(turn)));
    return live;
  }

  #leaveToOthers({ runId }) {
    this.#lives.delete(runId);
    session.setItem(FOLLOWED, JSON.stringify(followed().filter((each) => each !== runId)));
    if (this.thread.turns.some((turn) => turn.runId === runId)) this.open(this.thread);
  }

  /** Keeps what becomes of a turn's run. */
  #follow(turn, live) {
    const { thread, threads } = this;
    live.onevent = (event) => {
      const shown = this.turns.find((each) => each.live === live);
      if (event.seq === 1 && !turn.input) turn.input = event.input ?? ""; // it was begun on another page
      shown?.on(event);
      if (ASKS.has(event.type)) this.#listThreads();
    };
    live.onend = () => {
      const { recording } = live;
      const why = live.error?.message ?? recording.ending?.message ?? recording.ending?.reason;
      Object.assign(turn, { state: live.state, why, seen: live.seq });
      turn.answer = recording.answer.text || recording.ending?.output || turn.answer || "";
      if (this.thread !== thread || document.hidden) thread.isNews = true;
      threads.keep(thread); // which by now may be another user's
      this.#listThreads();
    };
    this.#lives.set(live.runId, live);
    const over = [...this.#lives].filter(([, each]) => each.isOver).map(([runId]) => runId);
    for (const runId of over.slice(0, Math.max(this.#lives.size - MOST_LIVES, 0))) this.#lives.delete(runId);
    session.setItem(FOLLOWED, JSON.stringify([...new Set([...followed(), live.runId])].slice(-MOST_LIVES)));
  }

  ask(input, parameters) {
    const { thread } = this;
    const agent = $("agent").value;
    const turn = { agent, input, parameters, state: "running", answer: "" };
    const live = new Live({ agent, input, parameters, threadId: thread.id, history: historyOf(thread.turns) }, this.who);
    const ends = live.start();
    turn.runId = live.runId;
    held(turn.runId, () => ends);
    this.#follow(turn, live);
    Object.assign(thread, { agent, parameters });
    thread.turns.push(turn);
    this.threads.keep(thread);
    this.#listThreads();
    const shown = this.#turn(turn);
    this.turns.push(shown);
    this.empty.hidden = true;
    $("turns").append(shown.element);
    $("turns").scrollTop = $("turns").scrollHeight;
    this.choose(shown);
  }

  stop(turn) {
    turn.cancel.disabled = true;
    turn.live.cancel();
  }

  /** Asks the same again: of the last turn below it, as if that were not there, and otherwise in a conversation of its own. */
  again(turn) {
    if (turn === this.turns.at(-1)) turn.turn.isReplaced = true;
    else this.#branch(turn);
    turn.showReplaced();
    this.#chooseAgent(turn.turn.agent, turn.turn.parameters);
    this.ask(turn.turn.input, turn.turn.parameters);
  }

  /** Lets a turn be asked otherwise, in a conversation of its own; nothing changes before that is sent. */
  edit(turn) {
    this.#editing = turn;
    $("editing").hidden = !turn;
    if (!turn) return $("input").focus();
    this.#chooseAgent(turn.turn.agent, turn.turn.parameters);
    $("input").value = turn.turn.input;
    $("input").focus();
    $("input").select();
  }

  #editing = null; // the turn that is asked otherwise

  /** Goes on before a turn: in a conversation that has what was said before it. */
  #branch(turn) {
    const at = this.turns.indexOf(turn);
    const thread = this.threads.begin(turn.turn.agent, this.thread.turns.slice(0, at));
    thread.title = this.thread.title;
    this.open(thread);
  }

  /** Looks at a turn's run. */
  choose(turn, isAsked = false) {
    if (this.#chosen !== turn) {
      this.#chosen?.element.removeAttribute("data-chosen");
      turn?.element.setAttribute("data-chosen", "");
      this.#chosen = turn;
      const { live = null } = turn ?? {};
      this.timeline.show(live?.recording ?? null);
      this.network.show(live);
      this.call.show(live?.request ?? turn?.turn ?? null);
      $("trace").hidden = !live?.traceparent;
      if (live?.traceparent) $("trace").href = this.who.traceOf(live.traceparent);
    }
    if (!isAsked) return;
    $("inspector").scrollIntoView({ block: "nearest" });
    this.#showTab("timeline");
    this.timeline.chooseCause();
    this.timeline.box.focus();
  }

  #listThreads() {
    const entries = this.threads.list.map((thread) => {
      const lives = thread.turns.map(({ runId }) => this.#lives.get(runId)).filter((live) => live && !live.isOver);
      const asks = lives.some(({ recording }) => recording.questions.size);
      const what = asks ? "asks you" : lives.length ? "goes on" : thread.isNews ? "has news" : "";
      const title = element("span", { className: "title", dir: "auto" }, thread.title || "…");
      const open = button("", () => this.open(thread), { className: what ? "open news" : "open" });
      open.append(title);
      if (thread.id === this.thread.id) open.setAttribute("aria-current", "true");
      if (what) open.append(" ", element("small", {}, what));
      const about = { className: "remove", ariaLabel: `Forget: ${thread.title}` };
      const remove = sure("×", "Forget?", () => this.#remove(thread), about);
      return element("li", {}, open, remove);
    });
    $("kept").replaceChildren(...entries);
    this.forget.hidden = !entries.length;
    const news = this.threads.list.filter(({ isNews }) => isNews).length;
    document.title = news ? `(${news}) Runwire console` : "Runwire console";
  }

  #remove(thread) {
    this.threads.remove(thread);
    if (thread === this.thread) this.open(this.threads.list[0] ?? this.threads.begin(this.#firstAgent()));
    else this.#listThreads();
    $("afresh").focus();
  }

  // What is asked

  #chooseAgent(name, sent) {
    if (name) $("agent").value = name;
    const agent = this.agents.get($("agent").value);
    $("description").textContent = agent?.description ?? "";
    $("input").placeholder = agent ? `Ask ${agent.name}` : "";
    this.parameters.show(agent?.parametersSchema, sent);
    this.#showBesides();
  }

  #showBesides() {
    if (!this.parameters.isRight) return ($("besides").textContent = ""); // it is still being written
    const sent = this.parameters.read();
    $("besides").textContent = sent ? JSON.stringify(sent) : "";
  }

  #showExamples() {
    const there = Object.entries(EXAMPLES).filter(([agent]) => this.agents.has(agent));
    const asks = there.flatMap(([agent, inputs]) => inputs.map((input) => ({ agent, input })));
    $("examples").replaceChildren(
      ...asks.map(({ agent, input }) =>
        button(input, () => {
          this.#chooseAgent(agent);
          this.ask(input, this.parameters.read());
          $("input").focus();
        }),
      ),
    );
  }

  #submit() {
    const input = $("input").value.trim();
    say($("missing"), input ? "" : "Write what it is about.");
    if (!input) return $("input").focus();
    $("more").open ||= !this.parameters.isRight; // what is wrong is said there
    if (!this.parameters.isRight) return this.parameters.complain();
    const [parameters, agent] = [this.parameters.read(), $("agent").value];
    if (this.#editing) this.#branch(this.#editing);
    $("agent").value = agent;
    this.ask(input, parameters);
    $("input").value = "";
    $("input").focus();
  }

  /** Shows a run that goes on without this page: in its conversation, if that is kept here. */
  #showFromElsewhere({ runId, agent }) {
    const own = this.threads.list.find(({ turns }) => turns.some((turn) => turn.runId === runId));
    const turn = own?.turns.find((each) => each.runId === runId) ?? { agent, input: "", runId, state: "running" };
    this.thread = own ?? this.threads.begin(agent, [turn]);
    this.#join(turn, true);
    this.open(this.thread);
  }

  // The page

  #listen() {
    $("ask").addEventListener("submit", (submitted) => {
      submitted.preventDefault();
      this.#submit();
    });
    $("input").addEventListener("keydown", (pressed) => {
      if (pressed.key !== "Enter" || pressed.shiftKey || pressed.isComposing) return;
      pressed.preventDefault();
      $("ask").requestSubmit();
    });
    $("agent").addEventListener("change", () => {
      local.setItem("agent", $("agent").value);
      this.#chooseAgent($("agent").value);
    });
    $("more").addEventListener("input", () => this.#showBesides());
    $("skip").addEventListener("click", (clicked) => {
      clicked.preventDefault();
      if ($("talk").hidden) location.hash = "#talk";
      $("talk").hidden = false;
      $("input").focus();
    });
    $("keep").addEventListener("click", () => this.edit(null));
    $("afresh").addEventListener("click", () => {
      this.open(this.threads.begin($("agent").value));
      $("input").focus();
    });
    $("token").addEventListener("change", () => {
      this.who.be($("token").value.trim());
      this.signIn();
    });
    const tabs = [...document.querySelectorAll("[role=tab]")];
    for (const tab of tabs) {
      tab.addEventListener("click", () => this.#showTab(tab.getAttribute("aria-controls")));
      tab.addEventListener("keydown", ({ key }) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
        if (!step) return;
        const next = tabs.at((tabs.indexOf(tab) + step) % tabs.length);
        this.#showTab(next.getAttribute("aria-controls"));
        next.focus();
      });
    }
    addEventListener("hashchange", () => this.#showView());
    document.addEventListener("visibilitychange", () => this.#onVisible());
    this.#showView();
  }

  /** Remembers how far runs were when the page was left, so that it can say what came meanwhile. */
  #onVisible() {
    for (const live of this.#lives.values()) document.hidden ? live.leave() : live.comeBack();
    if (!document.hidden) {
      this.thread.isNews = false;
      return this.#listThreads();
    }
    for (const thread of this.threads.list) {
      for (const turn of thread.turns) turn.seen = this.#lives.get(turn.runId)?.seq ?? turn.seen;
    }
    this.threads.write();
  }

  #showTab(name) {
    for (const tab of document.querySelectorAll("[role=tab]")) {
      const isChosen = tab.getAttribute("aria-controls") === name;
      tab.ariaSelected = String(isChosen);
      tab.tabIndex = isChosen ? 0 : -1;
      $(tab.getAttribute("aria-controls")).hidden = !isChosen;
    }
    this.timeline.draw();
    this.network.draw();
  }

  #showView() {
    const name = location.hash === "#side" ? "side" : "talk";
    const isBack = $("talk").hidden && name === "talk";
    for (const view of ["talk", "side"]) $(view).hidden = view !== name;
    if (isBack) $("turns").scrollTop = $("turns").scrollHeight; // where it was is forgotten while it isn't shown
    for (const link of document.querySelectorAll("nav a")) {
      if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  #version = "";

  /** Draws whatever has changed, once a picture. */
  #draw() {
    requestAnimationFrame(() => this.#draw());
    if (!$("side").hidden) this.side.draw();
    if ($("talk").hidden) return;
    const isRunning = this.turns.some((turn) => turn.isRunning);
    if (isRunning) keepEnd($("turns"));
    for (const turn of this.turns) turn.draw();
    const live = this.#chosen?.live;
    const version = live ? `${live.recording.version} ${live.wire.version}` : "";
    if (version === this.#version && !this.#chosen?.isRunning) return;
    this.#version = version;
    this.timeline.draw();
    this.network.draw();
  }
}

/** Does something with a run as long as that takes; `does` is told whether no other tab follows it. */
function held(runId, does) {
  if (!navigator.locks) return does(true); // the page came neither from this machine nor by https
  return navigator.locks.request(`runwire ${runId}`, { ifAvailable: true }, (lock) => does(lock !== null));
}

/** The ids of runs that this tab follows. */
function followed() {
  return JSON.parse(session.getItem(FOLLOWED) ?? "[]");
}

await new Console().begin();
