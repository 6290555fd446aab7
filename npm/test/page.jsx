// A page that uses everything useRun gives.
import { StrictMode, useState, version } from "react";
import { createRoot } from "react-dom/client";
import { useRun } from "runwire/react";

const url = `ws://${new URLSearchParams(location.search).get("gateway")}/v1/stream`;

function Followed() {
  const { state, text, reasoning, tools, questions, events, error, runId, start, join, cancel, answer } = useRun({ url });
  window.run = { start, join, cancel, answer, runId, questions };
  window.renderings = (window.renderings ?? 0) + 1;
  return (
    <dl>
      <dd id="state">{state}</dd>
      <dd id="text">{text}</dd>
      <dd id="reasoning">{reasoning}</dd>
      <dd id="tools">{tools.map(({ tool, isDone }) => `${tool} ${isDone}`).join()}</dd>
      <dd id="questions">{questions.map(({ message }) => message).join()}</dd>
      <dd id="seqs">{events.map(({ seq }) => seq).join()}</dd>
      <dd id="error">{error?.message}</dd>
    </dl>
  );
}

function Page() {
  const [isThere, setIsThere] = useState(true);
  window.mount = setIsThere;
  return isThere ? <Followed /> : <p id="gone">gone</p>;
}

document.body.dataset.react = version;
createRoot(document.getElementById("root")).render(
  <StrictMode>
    <Page />
  </StrictMode>,
);
