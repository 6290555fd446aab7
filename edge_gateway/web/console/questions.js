// Questions that an agent asks its user, as small forms made from their schemas.
import { button, element } from "./elements.js";
import { contentOf, fieldsOf } from "./fields.js";

const APPROVAL = "INPUT_REASON_TOOL_APPROVAL";
const OUTCOMES = {
  INPUT_OUTCOME_ACCEPTED: "Accepted",
  INPUT_OUTCOME_DECLINED: "Declined",
  INPUT_OUTCOME_EXPIRED: "Expired: nobody answered in time",
};

/** A question as a form. `send` is given what is answered, and returns a promise that it was taken. */
export function asForm(question, send) {
  const form = element("form", { className: "asked" });
  form.dataset.request = question.requestId;
  form.append(element("p", { className: "message" }, question.message));
  const isApproval = question.reason === APPROVAL;
  if (isApproval) form.append(proposal(question));
  const fields = isApproval ? [] : fieldsOf(question.schema);
  form.append(...fields.map(({ label }) => label));
  const wrong = element("p", { className: "wrong", role: "alert" });
  const isPlain = !isApproval && !fields.length;
  const accept = element("button", { type: "submit" }, isApproval ? "Approve" : isPlain ? "Yes" : "Answer");
  const decline = button(isPlain ? "No" : "Decline", () => say({ outcome: "declined" }));
  const until = element("span", { className: "until" }, deadline(question.expiresAt));
  form.append(wrong, element("p", { className: "buttons" }, accept, decline, until));

  const say = async (said) => {
    accept.disabled = decline.disabled = true;
    wrong.textContent = "";
    try {
      await send(said);
    } catch (error) {
      accept.disabled = decline.disabled = false;
      const named = Object.entries(error.violations ?? {}).map(([name, sentence]) => `${name} ${sentence}`);
      wrong.textContent = named.join("; ") || error.message;
    }
  };
  form.addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    say({ outcome: "accepted", content: contentOf(fields) });
  });
  return form;
}

/** What became of a question, in words. */
export function inWords({ outcome, answeredBy, time }) {
  const who = answeredBy && ` by ${answeredBy}`;
  return `${OUTCOMES[outcome] ?? "Settled"}${who}, ${new Date(time).toLocaleTimeString()}`;
}

/** The tool that would be called, and with what. */
function proposal({ tool, proposed = {} }) {
  const list = element("dl", { className: "proposed" }, element("dt", {}, tool));
  for (const [name, value] of Object.entries(proposed).sort()) {
    const shown = typeof value === "string" ? value : JSON.stringify(value);
    list.append(element("dd", {}, element("span", {}, `${name}: `), element("code", {}, shown)));
  }
  return list;
}

function deadline(expiresAt) {
  return expiresAt ? `until ${new Date(expiresAt).toLocaleTimeString()}` : "";
}
