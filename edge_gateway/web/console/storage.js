// What this browser keeps for the page, where it may: inside another page it may be that it keeps nothing.

/** What is kept as long as the browser keeps it. */
export const local = allowed("localStorage");
/** What is kept as long as the tab is there. */
export const session = allowed("sessionStorage");

function allowed(name) {
  try {
    globalThis[name].getItem("");
    return globalThis[name];
  } catch {
    const kept = new Map();
    return {
      getItem: (key) => kept.get(key) ?? null,
      setItem: (key, value) => kept.set(key, value),
      removeItem: (key) => kept.delete(key),
    };
  }
}
