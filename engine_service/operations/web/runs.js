/** What runs, every second, for whoever has an operator's token. Nothing of it is stored. */

const EVERY = 1000;
const element = (id) => document.getElementById(id);
const table = document.querySelector("table");
let token = "";
let timer;

element("signing-in").addEventListener("submit", (event) => {
  event.preventDefault();
  token = element("token").value.trim();
  clearTimeout(timer);
  look();
});

async function look() {
  try {
    const answer = await fetch("/v1/runs", { headers: token ? { Authorization: `Bearer ${token}` } : {}, cache: "no-store" });
    if (!answer.ok) return say((await answer.text()).trim());
    show(await answer.json());
  } catch {
    say("The engine does not answer.");
  }
  timer = setTimeout(look, EVERY);
}

/** Say something, in place of the runs. */
function say(sentence) {
  element("state").textContent = sentence;
  table.hidden = true;
}

function show({ engine, runs = [] }) {
  element("engine").textContent = engine;
  element("state").textContent = runs.length === 1 ? "One run." : runs.length ? `${runs.length} runs.` : "Nothing runs.";
  table.hidden = !runs.length;
  element("runs").replaceChildren(...runs.map(row));
}

function row(run) {
  const whose = run.service ? `${run.userId} (by ${run.service})` : run.userId;
  const cells = [
    [run.runId],
    [whose],
    [run.agent],
    [duration((Date.now() - Date.parse(run.started)) / 1000), "number"],
    [run.lastSeq ?? 0, "number"],
    [waiting(run)],
    [run.memoryBytes ? `${(run.memoryBytes / 2 ** 20).toFixed(1)} MiB` : "", "number"],
    [run.processorTime ? `${parseFloat(run.processorTime).toFixed(2)} s` : "", "number"],
  ];
  const made = document.createElement("tr");
  made.append(
    ...cells.map(([text, kind = ""]) => {
      const cell = document.createElement("td");
      cell.textContent = text;
      cell.className = kind;
      return cell;
    }),
  );
  return made;
}

function waiting({ waiting, tool, isRead }) {
  if (waiting === "WAITING_USER") return tool ? `its user, to approve ${tool}` : "its user";
  if (waiting === "WAITING_READER") return "its reader";
  return isRead ? "" : "nobody reads it";
}

function duration(seconds) {
  const whole = Math.max(Math.floor(seconds), 0);
  return whole < 60 ? `${whole} s` : whole < 3600 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

say("Runs are for operators: give a token.");
