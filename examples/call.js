const socket = new WebSocket("ws://127.0.0.1:8080/v1/stream");
socket.onopen = () => socket.send(JSON.stringify({ run: { agent: "triage", input: "My invoice is wrong" } }));
socket.onmessage = ({ data }) => JSON.parse(data).events?.forEach((event) => console.log(event));
socket.onclose = ({ code, reason }) => console.log("closed", code, reason);
