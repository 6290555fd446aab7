import { run } from "/runwire.js";

for await (const event of run({ agent: "triage", input: "My invoice is wrong" })) console.log(event.type, event);
