// Questions that an agent asks its user, as small forms made from their schemas.

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
  form.append(element("p", { className: "message", textContent: question.message }));
  const isApproval = question.reason === APPROVAL;
  if (isApproval) form.append(proposal(question));
  const fields = isApproval ? [] : fieldsOf(question.schema);
  form.append(...fields.map(({ label }) => label));
  const wrong = element("p", { className: "wrong", role: "alert" });
  const accept = element("button", { type: "submit", textContent: isApproval ? "Approve" : "Answer" });
  const decline = element("button", { type: "button", textContent: "Decline" });
  const until = element("span", { className: "until", textContent: deadline(question.expiresAt) });
  const buttons = element("p", { className: "buttons" });
  buttons.append(accept, decline, until);
  form.append(wrong, buttons);

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
    const given = fields.map(({ name, value }) => [name, value()]).filter(([, value]) => value !== undefined);
    say({ outcome: "accepted", content: given.length ? Object.fromEntries(given) : undefined });
  });
  decline.addEventListener("click", () => say({ outcome: "declined" }));
  return form;
}

/** What became of a question, in words. */
export function inWords({ outcome, answeredBy, time }) {
  const who = answeredBy && ` by ${answeredBy}`;
  return `${OUTCOMES[outcome] ?? "Settled"}${who}, ${new Date(time).toLocaleTimeString()}`;
}

/** The tool that would be called, and with what. */
function proposal({ tool, proposed = {} }) {
  const list = element("dl", { className: "proposed" });
  list.append(element("dt", { textContent: tool }));
  for (const [name, value] of Object.entries(proposed).sort()) {
    const shown = typeof value === "string" ? value : JSON.stringify(value);
    const entry = element("dd");
    entry.append(element("span", { textContent: `${name}: ` }), element("code", { textContent: shown }));
    list.append(entry);
  }
  return list;
}

/** A label and an input for each field, in the order in which they are required; then the others. */
function fieldsOf({ properties = {}, required = [] } = {}) {
  const names = [...new Set([...required, ...Object.keys(properties)])];
  return names.map((name) => fieldOf(name, properties[name], required.includes(name)));
}

function fieldOf(name, about, isRequired) {
  const isFlag = about.type === "boolean";
  const input = about.enum ? choice(about.enum, isRequired) : element("input", kindOf(about));
  if (!isFlag) input.required = isRequired;
  if (about.default !== undefined && !isFlag) input.value = about.default;
  if (isFlag) input.checked = about.default === true;
  const label = element("label", { className: isFlag ? "flag" : "" });
  label.append(element("span", { textContent: about.title ?? name }), input);
  if (about.description) label.append(element("small", { textContent: about.description }));
  const value = () => {
    if (isFlag) return input.checked;
    if (input.value === "" && !isRequired) return undefined;
    if (about.enum) return about.enum[input.selectedOptions[0].dataset.index];
    return about.type === "string" ? input.value : Number(input.value);
  };
  return { name, label, value };
}

function kindOf({ type, minimum, maximum, minLength, maxLength }) {
  if (type === "boolean") return { type: "checkbox" };
  if (type === "string") return { type: "text", autocomplete: "off", ...known({ minLength, maxLength }) };
  return { type: "number", step: type === "integer" ? "1" : "any", ...known({ min: minimum, max: maximum }) };
}

function choice(values, isRequired) {
  const select = element("select");
  if (!isRequired) select.append(new Option("", ""));
  for (const [index, value] of values.entries()) {
    const option = new Option(String(value), String(value));
    option.dataset.index = index;
    select.append(option);
  }
  return select;
}

function deadline(expiresAt) {
  return expiresAt ? `until ${new Date(expiresAt).toLocaleTimeString()}` : "";
}

function known(properties) {
  return Object.fromEntries(Object.entries(properties).filter(([, value]) => value !== undefined));
}

function element(tag, properties = {}) {
  return Object.assign(document.createElement(tag), properties);
}
