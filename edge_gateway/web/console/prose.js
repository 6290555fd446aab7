// Text that can be read: paragraphs, lists and code, as people and models write them in plain text.
//
// It is made of text alone. Nothing that an agent says becomes markup, a link, or a picture.
import { element } from "./elements.js";

const FENCE = /^\s{0,3}(```|~~~)\s*([\w+#.-]*)\s*$/;
const HEADING = /^\s{0,3}(#{1,6})\s+(.*)$/;
const ITEM = /^(\s*)(?:[-*+•]|(\d{1,9})[.)])\s+(.*)$/;
const INLINE = /(`+)(.+?)\1(?!`)|\*\*(\S(?:.*?\S)?)\*\*|(?<![*\w])\*([^*\s](?:[^*]*[^*\s])?)\*(?![*\w])/g;
const LONG = 4000; // characters of a paragraph, from which on it is not looked at for code and the like
const LONGEST = 20_000; // of one that is shown: a browser lays it out anew with each word that comes
const MOST_ITEMS = 40; // of a list, until it goes on as another one: what is over isn't made anew
const CUT = "…"; // begins one whose beginning is not shown

/** Shows text that grows in a box. What stands already stays as it is; only its last block is made anew. */
export class Prose {
  #box;
  #text = "";
  #done = 0; // characters that stand in blocks which are over
  #last = []; // the elements of what isn't over

  constructor(box) {
    this.#box = box;
  }

  show(text) {
    if (text === this.#text) return;
    if (!text.startsWith(this.#text)) this.#clear(); // some of it was taken back, or its beginning is gone
    this.#text = text;
    for (const old of this.#last) old.remove();
    const { blocks, over } = blocksOf(text.slice(this.#done));
    const made = blocks.map(({ end, ...block }) => ({ end, element: shown(block) }));
    this.#box.append(...made.map((each) => each.element));
    this.#last = made.filter(({ end }) => end > over).map((each) => each.element);
    this.#done += over;
  }

  #clear() {
    this.#box.replaceChildren();
    this.#last = [];
    this.#done = 0;
  }
}

/** Cuts text into blocks. All that ends before `over` will not change, whatever follows. */
export function blocksOf(text) {
  const blocks = [];
  let open = null;
  let at = 0;
  let over = 0;
  let isWhole = true; // whether the line is not being written any more: one that is may become another
  const close = (end) => {
    if (open) blocks.push({ ...open, end });
    open = null;
    if (isWhole) over = end;
  };
  for (const line of text.split("\n")) {
    const from = at;
    at += line.length + 1;
    isWhole = at <= text.length;
    const fence = FENCE.exec(line);
    if (open?.kind === "code") {
      if (fence && !fence[2] && fence[1] === open.fence) close(at);
      else open.lines.push(line);
      continue;
    }
    const item = ITEM.exec(line);
    const heading = HEADING.exec(line);
    if (fence && isWhole) {
      close(from);
      open = { kind: "code", fence: fence[1], lines: [] };
    } else if (!line.trim()) {
      if (open?.kind !== "list") close(from);
    } else if (heading) {
      close(from);
      open = { kind: "heading", lines: [heading[2]] };
    } else if (item) {
      const kind = item[2] ? "numbers" : "points";
      if (open?.kind !== "list" || open.of !== kind || open.items.length === MOST_ITEMS) {
        close(from);
        open = { kind: "list", of: kind, first: Number(item[2] ?? 1), items: [] };
      }
      open.items.push(item[3]);
    } else if (open?.kind === "list" && /^\s/.test(line)) {
      open.items.push(`${open.items.pop()}\n${line.trim()}`);
    } else if (open?.kind === "text") {
      open.lines.push(line);
    } else {
      close(from);
      open = { kind: "text", lines: [line] };
    }
  }
  if (open) blocks.push({ ...open, end: text.length + 1 });
  return { blocks, over };
}

function shown({ kind, lines, items, of, first }) {
  if (kind === "code") return element("pre", { tabIndex: 0 }, element("code", {}, ...bounded(lines.join("\n"))));
  if (kind === "heading") return element("p", { className: "heading" }, ...inline(lines[0]));
  if (kind === "text") return element("p", {}, ...inline(lines.join("\n")));
  const list = element(of === "numbers" ? "ol" : "ul", {}, ...items.map((item) => element("li", {}, ...inline(item))));
  if (of === "numbers") list.start = first;
  return list;
}

function bounded(text) {
  return [text.length > LONGEST ? CUT + text.slice(1 - LONGEST) : text];
}

/** Code and what is strong, in a line of text. */
function inline(text) {
  if (text.length > LONG) return bounded(text);
  const parts = [];
  let at = 0;
  for (const { index, 0: all, 2: code, 3: strong, 4: emphasised } of text.matchAll(INLINE)) {
    parts.push(text.slice(at, index));
    if (code !== undefined) parts.push(element("code", {}, code.trim()));
    else parts.push(strong !== undefined ? element("strong", {}, strong) : element("em", {}, emphasised));
    at = index + all.length;
  }
  return [...parts, text.slice(at)];
}
