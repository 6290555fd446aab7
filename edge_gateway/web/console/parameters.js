// What is sent along with a question: a form where the agent has declared it, and JSON, which is checked, where it hasn't.
import { button, element, say } from "./elements.js";
import { contentOf, fieldsOf } from "./fields.js";

export class Parameters {
  #fields = [];

  constructor(host) {
    this.form = element("div", { className: "fields" });
    this.wrong = element("p", { className: "wrong", role: "alert", id: "wrong" });
    this.text = element("textarea", { id: "parameters", rows: 3, placeholder: "a JSON object", spellcheck: false });
    this.text.setAttribute("aria-describedby", "wrong");
    this.editor = element("label", { className: "editor" }, "Parameters, as JSON", this.text);
    this.other = button("As JSON", () => this.#turn());
    this.text.addEventListener("input", () => this.#check());
    host.append(this.form, this.editor, this.wrong, this.other);
  }

  /** Shows a form for a schema, or an editor where there is none; with what was sent before, if anything was. */
  show(schema, sent) {
    this.#fields = schema ? fieldsOf(schema) : [];
    this.form.replaceChildren(...this.#fields.map(({ label }) => label));
    const isForms = sent === undefined || Object.keys(sent).every((name) => this.#fields.some((field) => field.name === name));
    if (sent !== undefined) for (const { name, show } of this.#fields) if (name in sent) show(sent[name]);
    this.text.value = sent === undefined ? "" : JSON.stringify(sent);
    this.other.hidden = !schema;
    this.#isForm = Boolean(schema) && isForms;
    this.#lay();
  }

  /** Returns what is to be sent. Throws where that is nothing that can be. */
  read() {
    return this.#isForm ? this.#filled() : parsed(this.text.value);
  }

  /** Says what is wrong, where it is. */
  complain() {
    try {
      this.read();
    } catch (error) {
      this.#say(error.message);
      (error.input ?? this.text).focus();
    }
  }

  get isRight() {
    try {
      this.read();
      return true;
    } catch {
      return false;
    }
  }

  #isForm = false;

  #filled() {
    for (const input of this.form.querySelectorAll("input, select")) {
      if (!input.checkValidity()) throw Object.assign(new Error(`${input.name}: ${input.validationMessage}`), { input });
    }
    return contentOf(this.#fields);
  }

  /** Shows the same as JSON, or as a form. */
  #turn() {
    try {
      if (this.#isForm) this.text.value = JSON.stringify(this.#filled() ?? {});
      else for (const { name, show } of this.#fields) if (name in (parsed(this.text.value) ?? {})) show(parsed(this.text.value)[name]);
    } catch (error) {
      this.#say(error.message);
      return;
    }
    this.#isForm = !this.#isForm;
    this.#lay();
  }

  #lay() {
    this.form.hidden = !this.#isForm;
    this.editor.hidden = this.#isForm;
    this.other.textContent = this.#isForm ? "As JSON" : "As a form";
    this.#say("");
  }

  #check() {
    try {
      parsed(this.text.value);
      this.#say("");
    } catch (error) {
      this.#say(error.message);
    }
  }

  #say(sentence) {
    say(this.wrong, sentence);
    this.text.ariaInvalid = String(sentence !== "" && !this.#isForm);
  }
}

function parsed(written) {
  if (!written.trim()) return undefined;
  try {
    const value = JSON.parse(written);
    if (value && typeof value === "object" && !Array.isArray(value)) return value;
  } catch (error) {
    throw new SyntaxError(`Parameters have to be a JSON object, like {"pace": 0.1}. ${error.message}`);
  }
  throw new SyntaxError('Parameters have to be a JSON object, like {"pace": 0.1}.');
}
