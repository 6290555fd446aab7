// Elements of a page, made of text alone: nothing that an agent says becomes markup.

/** Makes an element with properties, and with what is in it: elements, and text. */
export function element(tag, properties = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...inside.filter((each) => each !== undefined && each !== ""));
  return made;
}

/** Makes a button. */
export function button(words, onclick, properties = {}) {
  const made = element("button", { type: "button", ...properties }, words);
  made.addEventListener("click", onclick);
  return made;
}

/** What shows a value: a line where it is short, and otherwise something to open. */
export function details(name, value) {
  const line = JSON.stringify(value ?? null);
  const summary = element("summary", {}, line.length < 60 ? `${name}: ${line}` : name);
  return element("details", {}, summary, element("pre", { tabIndex: 0 }, JSON.stringify(value ?? null, null, 2)));
}

/** Has an element say something. What it says already is left alone, or it would be read aloud again and again. */
export function say(said, words) {
  if (said.textContent !== words) said.textContent = words;
}

/** Copies text, and says so for a moment on the button that was pressed. */
export async function copy(text, pressed) {
  const words = pressed.textContent;
  await navigator.clipboard.writeText(text).then(
    () => (pressed.textContent = "Copied"),
    () => (pressed.textContent = "Not allowed here"),
  );
  setTimeout(() => (pressed.textContent = words), 1500);
}

/** So many of something, in words. */
export function many(number, what) {
  return `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;
}

/** Does something that cannot be undone when a button is pressed twice: the first time it asks. */
export function sure(words, ask, does, properties) {
  const made = button(words, () => {
    if (made.textContent === ask) return does();
    made.textContent = ask;
    setTimeout(() => (made.textContent = words), 4000);
  }, properties);
  return made;
}

/** Keeps a box's end in sight, if it is. To be called before the box grows. */
export function keepEnd(box) {
  if (growing.has(box)) return; // once a picture, since it costs a layout
  growing.add(box);
  const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 24; // or somebody reads further up
  requestAnimationFrame(() => {
    growing.delete(box);
    if (isAtEnd) box.scrollTop = box.scrollHeight;
  });
}

const growing = new WeakSet();
