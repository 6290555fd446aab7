// A run as one would write it: with runwire.js, in Python, with grpcurl, and with nothing but a WebSocket.

/** The ways to call, each with what it takes to have it. */
export const WAYS = {
  "runwire.js": { write: javascript, needs: "In a page, or in Node 22: save /runwire.js beside it." },
  Python: { write: python, needs: "pip install 'runwire[client]'" },
  grpcurl: { write: grpcurl, needs: "grpcurl, and an engine that may be asked what can be called (REFLECTION)." },
  WebSocket: { write: socket, needs: "Any language that has WebSockets: this is all of the protocol." },
};

/** What was asked, without what is empty. */
function asked({ agent, input, threadId, parameters, history }) {
  const full = { agent, input, threadId, parameters, history: history?.length ? history : undefined };
  return JSON.parse(JSON.stringify(full));
}

function javascript(request, { stream, token }) {
  const options = token ? { url: stream, token } : { url: stream };
  return `import { run } from "./runwire.js";

const request = ${json(asked(request))};
const options = ${json(options)};
for await (const event of run(request, options)) {
  console.log(event.type, event.delta ?? event.output ?? "");
}
`;
}

function python(request, { engine, token }) {
  const { agent, input = "", threadId, parameters, history } = asked(request);
  const said = history?.map(({ role, text }) => [role === "ROLE_USER" ? "user" : "assistant", text]);
  const named = { thread_id: threadId, parameters, history: said };
  const more = Object.entries(named).filter(([, value]) => value !== undefined);
  const options = token ? `, token=${literal(token)}` : "";
  return `import asyncio

from runwire.client import Client


async def main():
    async with Client(${literal(engine)}${options}) as client:
        async for event in client.run(
            ${[literal(agent), literal(input), ...more.map(([name, value]) => `${name}=${literal(value)}`)].join(",\n            ")},
        ):
            print(event.type, getattr(event, "delta", getattr(event, "output", "")))


asyncio.run(main())
`;
}

function grpcurl(request, { engine, token }) {
  const { history, ...rest } = asked(request);
  const header = token ? ` -H ${quoted(`authorization: Bearer ${token}`)}` : "";
  const data = quoted(JSON.stringify(history ? { ...rest, history } : rest));
  return `grpcurl -plaintext${header} \\
  -d ${data} \\
  ${engine} runwire.v1.EngineService/Run
`;
}

function socket(request, { stream, token }) {
  const first = { accessToken: token || undefined, run: asked(request) };
  return `const socket = new WebSocket(${JSON.stringify(stream)}, "runwire.v1.json");
const first = ${json(JSON.parse(JSON.stringify(first)))};
socket.onopen = () => socket.send(JSON.stringify(first));
socket.onmessage = ({ data }) => console.log(data);
socket.onclose = ({ code, reason }) => console.log("closed with", code, reason);
`;
}

function json(value) {
  return JSON.stringify(value, null, 2);
}

/** A value as Python writes it. */
function literal(value) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "number") return String(value);
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  const entries = Object.entries(value).map(([key, inner]) => `${literal(key)}: ${literal(inner)}`);
  return `{${entries.join(", ")}}`;
}

/** A word as a shell takes it. */
function quoted(word) {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
