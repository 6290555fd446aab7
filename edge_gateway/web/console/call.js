// "Call it yourself": the run that is chosen, as one would write it.
import { button, copy, element, say } from "./elements.js";
import { WAYS } from "./snippets.js";

export class Call {
  #request = null;
  #way = "runwire.js";

  /** `places` says where the services are: `stream` of the gateway, `engine`; `who` says who asks. */
  constructor(host, { places, who }) {
    Object.assign(this, { places, who });
    this.ways = element("div", { className: "ways", role: "group", ariaLabel: "In which way" });
    for (const name of Object.keys(WAYS)) {
      this.ways.append(button(name, () => this.#choose(name), { ariaPressed: String(name === this.#way) }));
    }
    this.needs = element("p", { className: "hint" });
    this.code = element("code");
    this.copy = button("Copy", ({ target }) => copy(this.code.textContent, target), { className: "copy" });
    const shown = element("pre", { tabIndex: 0, ariaLabel: "The code" }, this.code);
    host.append(this.ways, this.needs, shown, element("p", { className: "buttons" }, this.copy));
  }

  /** Shows how to ask for what a run was asked for, or for what is about to be. */
  show(request) {
    this.#request = request;
    const { write, needs } = WAYS[this.#way];
    const code = request ? write(request, { ...this.places(), token: this.who.shown }) : "";
    this.needs.textContent = request ? needs : "No run is chosen.";
    say(this.code, code);
    this.copy.disabled = !request;
  }

  #choose(name) {
    this.#way = name;
    for (const each of this.ways.children) each.ariaPressed = String(each.textContent === name);
    this.show(this.#request);
  }
}
