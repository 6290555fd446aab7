import { run } from "/runwire.js";

const money = run({ agent: "triage", input: "I want my money back", resumeWindow: 3600 });
for await (const event of money) {
  console.log(event.type, event);
  if (event.type === "input_requested") await money.answer(event.requestId, { outcome: "accepted" });
}
