// Has runwire.js be told every story at once, and says what came of each: node stories.mjs CLIENT GATEWAY STORIES
const [client, gateway, stories] = process.argv.slice(2);
const runwire = await import(client);
const NAMES = { 1000: "ended", 1006: "lost", 4003: "INVALID_ARGUMENT", 4005: "NOT_FOUND", 4006: "ALREADY_EXISTS" };
Object.assign(NAMES, { 4011: "OUT_OF_RANGE", 4012: "UNIMPLEMENTED", 4013: "INTERNAL", 4016: "UNAUTHENTICATED" });

async function told(script, number) {
  const onconnection = ({ state }) => state === "waiting" && script.cancels_after === 0 && run.cancel();
  const options = { url: `ws://${gateway}/v1/stream`, token: String(number), onconnection };
  const position = { runId: "3e9f5d0c-6a4b-4f6e-9d0b-2f8b1c7a5e41", afterSeq: script.joins };
  const request = { agent: "told", resumeWindow: script.window };
  const run = script.joins ? runwire.resume(position, options) : runwire.run(request, options);
  const seqs = [];
  try {
    for await (const { seq } of run) {
      seqs.push(seq);
      if (seq === script.cancels_after) run.cancel();
    }
  } catch (error) {
    return { seqs, raised: NAMES[error.code] ?? String(error) };
  }
  return { seqs, raised: null };
}

console.log(JSON.stringify(await Promise.all(JSON.parse(stories).map(told))));
