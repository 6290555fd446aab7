// A chat with an agent: what it says, thinks and does, what it asks for, and a page that may be loaded again in between.
import { useEffect, useMemo, useState } from "react";
import { createRoot } from "react-dom/client";
import { useChat } from "@ai-sdk/react";
import { lastAssistantMessageIsCompleteWithApprovalResponses } from "ai";
import { RunwireChatTransport, shown } from "runwire/ai-sdk";

const asked = new URLSearchParams(location.search);
const url = `ws://${asked.get("gateway") ?? "127.0.0.1:8080"}/v1/stream`;
const agent = asked.get("agent") ?? "triage";
const parameters = JSON.parse(asked.get("parameters") ?? "{}");
const before = JSON.parse(localStorage.getItem("chat") ?? "[]");

function Chat() {
  const [connection, setConnection] = useState("");
  const transport = useMemo(() => {
    const onconnection = ({ state }) => setConnection(state === "waiting" || state === "reconnecting" ? "reconnecting …" : "");
    return new RunwireChatTransport({ url, agent, parameters, onconnection });
  }, []);
  const { messages, setMessages, sendMessage, status, stop, error, addToolApprovalResponse } = useChat({
    id: "chat",
    messages: before,
    transport,
    resume: true,
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses,
  });
  useEffect(() => {
    localStorage.setItem("chat", JSON.stringify(messages));
    window.scrollTo({ top: document.body.scrollHeight });
  }, [messages]);
  const isBusy = status === "submitted" || status === "streaming";

  const send = (event) => {
    event.preventDefault();
    const field = event.currentTarget.elements.text;
    if (!field.value.trim()) return;
    sendMessage({ text: field.value });
    field.value = "";
  };

  return (
    <main>
      <header>
        <h1>{agent}</h1>
        <button onClick={() => setMessages([])}>New chat</button>
      </header>
      <ol aria-live="polite">
        {messages.map((message) => (
          <li key={message.id} className={message.role}>
            {shown(message.parts).map((part, number) => (
              <Part key={number} part={part} answer={addToolApprovalResponse} />
            ))}
          </li>
        ))}
      </ol>
      {error && <p className="error">{error.message}</p>}
      <p className="status" role="status">
        {connection || status}
      </p>
      <form onSubmit={send}>
        <input name="text" aria-label="Message" placeholder="My invoice is wrong" autoComplete="off" disabled={isBusy} />
        {isBusy ? (
          <button type="button" onClick={stop}>
            Stop
          </button>
        ) : (
          <button className="main">Send</button>
        )}
      </form>
    </main>
  );
}

function Part({ part, answer }) {
  switch (part.type) {
    case "text":
      return <span>{part.text}</span>;
    case "reasoning":
      return <div className="reasoning">{part.text}</div>;
    case "dynamic-tool":
      return <Tool part={part} answer={answer} />;
    case "data-agent":
      return (
        <div className="agent">
          {part.data.agent}: {part.data.state}
        </div>
      );
    default:
      return null;
  }
}

function Tool({ part: { toolName, input, output, errorText, state, approval }, answer }) {
  const asks = state === "approval-requested";
  const settle = (approved) => answer({ id: approval.id, approved });
  return (
    <div className={asks ? "tool asks" : "tool"}>
      <b>{toolName}</b> <code>{JSON.stringify(input)}</code>
      {asks && (
        <p>
          May it be called? <button onClick={() => settle(true)}>Approve</button>{" "}
          <button onClick={() => settle(false)}>Decline</button>
        </p>
      )}
      {state === "output-denied" && <div>You said no.</div>}
      {errorText && <div className="error">{errorText}</div>}
      {output !== undefined && <code>→ {JSON.stringify(output)}</code>}
    </div>
  );
}

createRoot(document.getElementById("root")).render(<Chat />);
