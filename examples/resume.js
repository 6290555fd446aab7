import { run } from "/runwire.js";

const asked = { agent: "triage", input: "My invoice is wrong", resumeWindow: 60 };
const onconnection = ({ state, seq }) => console.log(state, "at", seq);
for await (const event of run(asked, { onconnection })) console.log(event.type, event);
